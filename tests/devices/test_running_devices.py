"""Devices that a plant comes to know while it runs, with the flow killed around it: what waited comes in
once, and a replay of the capture gives the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.views import Views
from tests.change.plants import FILES, changed
from tests.change.running import RunningPlant, until

QUICK = changed(
    FILES,
    ("plant.yaml", "historian:", "devices: {source: stream, unknown: hold}\nhistorian:"),
    ("products/press.yaml", "every: 10s", "every: 5s"),
    ("rules/hot.yaml", "on_delay: 5s", "on_delay: 1s"),
)


@pytest.mark.timeout(300)
def test_held_frames_come_in_once_over_kills(tmp_path: Path) -> None:
    with RunningPlant(tmp_path, QUICK) as plant:
        views = Views(plant.data)

        def rows() -> dict[str, dict[str, Any]]:
            return {row["device_id"]: row for row in views.devices()}

        try:
            until(
                "frames to be held",
                lambda: min(rows().get(name, {}).get("held", 0) for name in ("p3", "p4")) > 5,
            )
            plant.kill("flow")
            plant.until_ready()
            told = json.loads(
                plant.call(
                    "devices set", "p3", "productId=press", "hub_id=h2", "k=5", "--why", "new", "--json"
                )
            )
            assert (told["accepted"], told["message"]) == (True, "1 row changed")
            until("p3 to be heard", lambda: rows()["p3"]["last_heard"])
            plant.kill("flow")
            plant.until_ready()
            error = plant.call("devices set", "p4", "productId=pres", "--why", "new", code=1)
            assert "[0].data.productId: no product 'pres'; did you mean 'press'?" in error
            assert rows()["p4"]["held"] > 5
            plant.call("devices set", "p4", "productId=press", "--why", "new")
            plant.call("devices retire", "p2", "--why", "scrapped")
            until("p4 to be heard", lambda: rows()["p4"]["last_heard"])
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
