"""The server, the views and the commands over one data directory."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families

from connectors.errors import PenstockError
from flows import look_command
from flows.alarms_command import alarms
from flows.health import readiness
from flows.server import make_app
from flows.status import write_atomically
from flows.views import Views
from tests.server.looked_at import make_data

BASE = "/api/v3.1/submodels"
PRESS_01 = "https://example.com/sm/press-01/operational"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plant") / "data"
    make_data(folder)
    return folder


@pytest.fixture
def client(data: Path) -> Iterator[TestClient[Any]]:
    with TestClient(make_app(data, "127.0.0.1:8080"), base_url="http://127.0.0.1:8080") as opened:
        yield opened


@pytest.fixture
def views(data: Path) -> Iterator[Views]:
    opened = Views(data)
    yield opened
    opened.close()


def encoded(identifier: str) -> str:
    return base64.urlsafe_b64encode(identifier.encode()).decode().rstrip("=")


def test_ledger_sums_hold(views: Views) -> None:
    rows = views.ledger_rows()
    total = {name: sum(row.get(name, 0) for row in rows) for row in rows for name in row if "_" in name}
    assert total["frames_in"] == 115
    assert total["frames_in"] == total["frames_decoded"] + total["frames_rejected"]
    assert total["readings_decoded"] == total["readings_accepted"] == 113
    reasons = {reason: count for (_, _, reason), count in views.rejects_by_reason().items()}
    assert reasons == {"malformed": 1, "unknown_device": 1}


def test_alarms_open_and_past(client: TestClient[Any]) -> None:
    (alarm,) = client.get("/api/alarms").json()
    assert alarm["subject"] == "press-01/temp-high-press"
    assert alarm["since"] == "2026-03-01T09:00:00.000Z"
    assert alarm["event_time"] == "2026-03-01T09:00:10.000Z"
    assert alarm["active"]
    assert alarm["severity"] == "high"
    events = client.get("/api/alarms?history=true&limit=2").json()
    assert [event["data"]["transition"] for event in events] == ["closed", "cleared"]  # newest first
    assert len(client.get("/api/alarms?history=true").json()) == 4


def test_devices_and_their_values(client: TestClient[Any]) -> None:
    devices = {row["device_id"]: row for row in client.get("/api/devices").json()}
    assert len(devices) == 12
    assert devices["press-01"]["last_heard"] == "2026-03-01T09:01:14.000Z"
    assert devices["press-01"]["alarms"] == ["temp-high-press"]
    assert devices["press-03"]["last_heard"] is None
    state = client.get("/api/devices/press-01/state").json()
    assert state["tempC"]["value"] == 99.5
    assert state["mode"]["value"] == "run"
    assert state == client.get("/api/state").json()["press-01"]
    assert client.get("/api/devices/press-03/state").status_code == 404


def test_rejects_newest_first_and_by_reason(client: TestClient[Any]) -> None:
    assert [row["reason"] for row in client.get("/api/rejects").json()] == ["unknown_device", "malformed"]
    assert [row["position"] for row in client.get("/api/rejects?reason=malformed").json()] == [80]
    assert len(client.get("/api/rejects?limit=1").json()) == 1


def test_rules(client: TestClient[Any]) -> None:
    assert "temp-high-press" in [rule["ruleId"] for rule in client.get("/api/rules").json()]


def test_submodel_values(client: TestClient[Any]) -> None:
    path = f"{BASE}/{encoded(PRESS_01)}"
    value = client.get(f"{path}/$value").json()
    assert value["Temperature"] == 99.5
    assert value["Mode"] == "run"
    assert value["Alarms"] == {"OverTemperature": True, "Vibration": False}
    assert value["Temperature1m"]["Max"] == 99.75
    whole = client.get(path).json()
    assert whole["id"] == PRESS_01
    assert client.get(f"{path}/submodel-elements/$value").json() == value
    assert client.get(f"{path}/submodel-elements/Temperature/$value").text == "99.5"
    assert client.get(f"{path}/submodel-elements/Mode/$value").text == '"run"'
    assert client.get(f"{path}/submodel-elements/Alarms.OverTemperature/$value").json() is True
    assert client.get(f"{path}/submodel-elements/Temperature").json() == whole["submodelElements"][0]


def test_submodel_of_a_device_never_heard(client: TestClient[Any]) -> None:
    value = client.get(f"{BASE}/{encoded(PRESS_01.replace('01', '05'))}/$value").json()
    assert value["Temperature"] is None
    assert value["Alarms"]["OverTemperature"] is False


def test_submodel_pages(client: TestClient[Any]) -> None:
    whole = client.get(BASE).json()
    assert len(whole["result"]) == 12
    assert whole["paging_metadata"] == {}
    found: list[str] = []
    query = "?limit=5"
    while True:
        page = client.get(BASE + query).json()
        found.extend(one["id"] for one in page["result"])
        if "cursor" not in page["paging_metadata"]:
            break
        query = f"?limit=5&cursor={page['paging_metadata']['cursor']}"
    assert found == [one["id"] for one in whole["result"]]
    assert len(client.get(f"{BASE}?idShort=Hydraulics").json()["result"]) == 4
    assert client.get(f"{BASE}?idShort=Nothing").json()["result"] == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"{BASE}/{encoded('urn:none')}", 404),
        (f"{BASE}/not!base64", 400),
        (f"{BASE}/_w", 400),  # no UTF-8
        (f"{BASE}?limit=0", 400),
        (f"{BASE}?cursor=x", 400),
        (f"{BASE}/{encoded(PRESS_01)}/submodel-elements/Nothing", 404),
        (f"{BASE}/{encoded(PRESS_01)}/submodel-elements/Temperature.Below", 404),
    ],
)
def test_errors_are_aas_results(client: TestClient[Any], path: str, code: int) -> None:
    answer = client.get(path)
    assert answer.status_code == code
    (message,) = answer.json()["messages"]
    assert message["code"] == str(code)
    assert message["messageType"] == "Error"
    assert message["text"]


def test_other_paths_and_bad_input(client: TestClient[Any]) -> None:
    assert client.get("/nothing").status_code == 404
    assert client.get("/api/alarms?limit=10001").json() == {"error": "limit: Expected `int` <= 10000"}
    assert client.post("/api/alarms").status_code == 405
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/docs/openapi.json").json()["info"]["title"] == "Penstock"


def test_what_web_pages_ask_is_refused(client: TestClient[Any]) -> None:
    assert client.get("/api/alarms", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/api/alarms", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get("/api/alarms", headers={"Host": "localhost:8080"}).status_code == 200


def test_metrics_are_prometheus_text(client: TestClient[Any]) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["penstock_frames_total", "decoded", "line1", "press-v1"] == 113
    assert samples["penstock_alarm_events_total", "raised"] == 2
    assert samples["penstock_backlog_records", "alarms-file"] == 0
    assert sum(value for key, value in samples.items() if key[0] == "penstock_rejects_total") == 2


def test_drained(data: Path, views: Views) -> None:
    assert views.drained()
    cursor = data / "cursors" / "alarms-file.json"
    before = cursor.read_bytes()
    behind = json.loads(before)
    behind["kinds"]["alarms"] -= 1
    try:
        cursor.write_text(json.dumps(behind))
        assert not views.drained()
        waiting = views.waiting()["alarms-file"]
        assert waiting["records"] == 1
        assert waiting["bytes"] > 0
        assert waiting["oldest_s"] > 0
    finally:
        cursor.write_bytes(before)


def test_nothing_there_yet(tmp_path: Path) -> None:
    views = Views(tmp_path)
    assert views.open_alarms() == []
    assert views.devices() == []
    assert views.submodels(0, 10) == []
    assert views.alarm_history(5) == []
    assert views.rejects(5) == []
    assert not views.drained()
    assert readiness(tmp_path) == {"ready": False, "components": {}}
    with TestClient(make_app(tmp_path, "127.0.0.1:8080"), base_url="http://127.0.0.1:8080") as client:
        assert client.get("/health/ready").status_code == 503
        assert client.get("/metrics").status_code == 200


def component(data: Path, name: str, **body: Any) -> None:
    told = {"component": name, "updated_ms": int(time.time() * 1000), **body}
    (data / "run").mkdir(exist_ok=True)
    write_atomically(data / "run" / f"{name}.json", json.dumps(told).encode())


def supervised(data: Path, **states: str) -> None:
    children = {
        name.replace("_", "-"): {"state": state, "pid": os.getpid(), "restarts": 1, "last_exit": None}
        for name, state in states.items()
    }
    component(data, "supervisor", pid=os.getpid(), components=children)


def test_readiness_tells_of_each_component(tmp_path: Path) -> None:
    pid = os.getpid()
    supervised(tmp_path, flow="running", receiver_line1="running", drainer_kafka="running")
    component(tmp_path, "flow", pid=pid, state="running", output={"full": None})
    component(tmp_path, "receiver-line1", pid=pid, state="connected")
    component(tmp_path, "drainer-kafka", pid=pid, state="retrying", detail="k:9092: refused")
    told = readiness(tmp_path)
    assert told["ready"]
    assert told["components"]["drainer-kafka"] == {
        "ready": True,
        "state": "target away",
        "detail": "k:9092: refused",
    }
    component(tmp_path, "receiver-line1", pid=pid, state="disconnected", detail="127.0.0.1:1883: refused")
    told = readiness(tmp_path)
    assert not told["ready"]
    assert told["components"]["receiver-line1"]["detail"] == "127.0.0.1:1883: refused"
    component(tmp_path, "receiver-line1", pid=pid, state="silent")
    component(tmp_path, "flow", pid=pid, state="running", output={"full": "kafka: 9 bytes wait"})
    assert readiness(tmp_path)["components"]["flow"]["detail"] == "kafka: 9 bytes wait"
    component(tmp_path, "flow", pid=pid + 1, state="running")  # what a predecessor said
    assert readiness(tmp_path)["components"]["flow"]["state"] == "starting"
    component(tmp_path, "flow", pid=pid, state="running", updated_ms=0)
    assert readiness(tmp_path)["components"]["flow"]["state"] == "hanging"
    supervised(tmp_path, flow="waiting")
    assert readiness(tmp_path)["components"]["flow"]["state"] == "ended"


def test_commands_give_the_same_json(data: Path, client: TestClient[Any]) -> None:
    def run(command: Any, *arguments: str) -> Any:
        result = CliRunner().invoke(command, [*arguments, "--data", str(data), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert run(alarms) == client.get("/api/alarms").json()
    assert run(look_command.devices) == client.get("/api/devices").json()
    assert run(look_command.state) == client.get("/api/state").json()
    assert run(look_command.rejects) == client.get("/api/rejects").json()
    exported = CliRunner().invoke(look_command.rejects, ["export", "--data", str(data)])
    assert [json.loads(line)["position"] for line in exported.stdout.splitlines()] == [80, 81]


def test_a_plant_that_never_ran(tmp_path: Path) -> None:
    result = CliRunner().invoke(look_command.devices, ["--data", str(tmp_path)])
    assert isinstance(result.exception, PenstockError)
    assert "run it first: penstock run" in str(result.exception)


def test_top_needs_a_running_plant(data: Path) -> None:
    result = CliRunner().invoke(look_command.top, ["--data", str(data), "--once"])
    assert isinstance(result.exception, PenstockError)
    assert "the plant is not running" in str(result.exception)


def test_top_adds_up_the_rejects_of_a_reason(views: Views) -> None:
    refused = [
        {"source": source, "productId": "p", "reason": reason, "count": count}
        for source, reason, count in (("a", "type", 2), ("b", "empty", 1), ("b", "type", 3))
    ]
    status = {**views.status(), "rejects": refused}
    parts = look_command.top_parts(status, look_command.Rates())
    assert "rejects  empty: 1  type: 5" in parts
