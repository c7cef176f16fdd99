"""Devices that a plant comes to know while it runs, with the flow killed around it: what waited comes in
once, and a replay of the capture gives the same."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from flows.views import Views
from tests.change.plants import FILES, changed
from tests.change.running import RunningPlant
from tests.waiting import LIMIT_S, until

QUICK = changed(
    FILES,
    ("plant.yaml", "historian:", "devices: {source: stream, unknown: hold}\nhistorian:"),
    ("products/press.yaml", "every: 10s", "every: 5s"),
    ("rules/hot.yaml", "on_delay: 5s", "on_delay: 1s"),
)


def posted(plant: RunningPlant, body: Any) -> tuple[int, Any]:
    """What POST /api/master answers."""
    url = f"http://127.0.0.1:{plant.environ['SERVER_PORT']}/api/master"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_held_frames_come_in_once_over_kills(tmp_path: Path) -> None:
    with RunningPlant(tmp_path, QUICK) as plant:
        views = Views(plant.data)

        def rows() -> dict[str, dict[str, Any]]:
            return {row["device_id"]: row for row in views.devices()}

        try:
            until(
                lambda: min(rows().get(name, {}).get("held", 0) for name in ("p3", "p4")) > 5,
                "frames to be held",
            )
            plant.kill("flow")
            plant.until_ready()
            told = json.loads(
                plant.call(
                    "devices set", "p3", "productId=press", "hub_id=h2", "k=5", "--why", "new", "--json"
                )
            )
            assert (told["accepted"], told["message"]) == (True, "1 row changed")
            until(lambda: rows()["p3"]["last_heard"], "p3 to be heard")
            plant.kill("flow")
            plant.until_ready()
            error = plant.call("devices set", "p4", "productId=pres", "--why", "new", code=1)
            assert "changes[0].data.productId: no product 'pres'; did you mean 'press'?" in error
            error = plant.call("devices retire", "pp2", "--why", "gone", code=1)
            assert "unknown device 'pp2'; did you mean 'p2'?" in error
            assert rows()["p4"]["held"] > 5
            plant.call("devices set", "p4", "productId=press", "--why", "new")
            changes = [{"op": "delete", "table": "devices", "keys": {"device_id": "p2"}}]
            sites = [{"op": "upsert", "table": "sites", "data": {"site_id": "ulsan", "city": "Ulsan"}}]
            assert posted(plant, {"changes": [{"op": "upsrt"}], "by": "kim"})[0] == 400
            wrong = {"op": "upsert", "table": "devices", "data": {"device_id": "p9", "productId": "pres"}}
            status, told = posted(plant, {"changes": [*changes, wrong], "by": "kim"})
            assert (status, told["accepted"], rows()["p2"]["status"]) == (409, False, "in_service")
            assert told["message"] == "changes[1].data.productId: no product 'pres'; did you mean 'press'?"
            status, told = posted(plant, {"changes": [*changes, *sites], "by": "kim", "why": "scrapped"})
            assert (status, told["message"]) == (200, "2 rows changed")
            assert views.master("sites") == [{"site_id": "ulsan", "city": "Ulsan"}]
            until(lambda: rows()["p4"]["last_heard"], "p4 to be heard")
            for site in ("ulsan", "busan"):  # readings on their way are of where the device was
                moved = {"device_id": "p1", "site_id": site, "k": "6" if site == "ulsan" else ""}
                status, told = posted(
                    plant, {"changes": [{"op": "upsert", "table": "devices", "data": moved}], "by": "kim"}
                )
                assert (status, told["message"]) == (200, "1 row changed")
            plant.kill("flow")
            plant.until_ready()
            assert (rows()["p2"]["status"], rows()["p3"]["hub_id"], rows()["p3"]["held"]) == (
                "retired",
                "h2",
                0,
            )
            plant.call("params set", "p3", "tempHigh=95", "--why", "summer")
            found = plant.compared()
        finally:
            views.close()
        assert found.clean, "\n".join(found.lines())
        for pair, terms in Views(plant.data).ledger().items():
            parts = ("frames_decoded", "frames_rejected", "frames_filtered", "frames_held")
            assert terms["frames_in"] == sum(terms.get(part, 0) for part in parts), pair
