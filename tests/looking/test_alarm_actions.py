"""The operator's way in: what is taken, and what is refused before it reaches the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient

from connectors.errors import ConfigError, PenstockError
from flows.alarm_actions import Action, checked, find_one
from flows.alarms_command import alarms
from flows.server import make_app
from flows.views import Views
from tests.server.looked_at import make_data

NOW = 1_772_355_600_000  # 2026-03-01T09:00:00Z
ID = "0123456789abcdef" * 2


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
def alarm_id(data: Path) -> str:
    (alarm,) = Views(data).open_alarms()
    return str(alarm["alarm_id"])


def test_what_is_journaled() -> None:
    action = checked("shelve", ID, " kim ", "pump is being repaired", None, "2h", NOW)
    assert action == Action("shelve", ID, "kim", "pump is being repaired", NOW + 7_200_000)
    assert action.data() == {
        "kind": "alarm",
        "action": "shelve",
        "alarm_id": ID,
        "by": "kim",
        "why": "pump is being repaired",
        "until_ms": NOW + 7_200_000,
    }
    assert checked("out-of-service", ID, "kim", None, None, None, NOW).data()["action"] == "out_of_service"
    assert checked("shelve", ID, "kim", "", "2026-03-01T10:00:00+01:00", None, NOW - 1).until_ms == NOW
    assert checked("ack", ID, "김민수", "확인", None, None, NOW).why == "확인"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ack", ID, "", None, None, None), "by: is empty; name who acts"),
        (("ack", ID, " \t", None, None, None), "by: is empty; name who acts"),
        (("ack", ID, "x" * 101, None, None, None), "by: 101 characters; at most 100"),
        (("ack", ID, "kim", "y" * 1001, None, None), "why: 1001 characters; at most 1000"),
        (("ack", ID, "k\x00m", None, None, None), "by: character 2 is a control (U+0000); leave it out"),
        (("ack", ID, "kim", "a\nb", None, None), "why: character 2 is a control (U+000A); leave it out"),
        (
            ("ack", ID, "kim\u202egnp", None, None, None),
            "by: character 4 is a control (U+202E); leave it out",
        ),
        (("ack", ID, "\ud800x", None, None, None), "by: character 1 is a control (U+D800); leave it out"),
        (
            ("ack", ID.upper(), "kim", None, None, None),
            "alarm_id: 32 digits from 0 to 9 and a to f are expected",
        ),
        (("ack", ID, "kim", None, None, "2h"), "for: only a shelving ends by itself"),
        (("reset", ID, "kim", None, "2026-03-01T10:00:00Z", None), "until: only a shelving ends by itself"),
        (
            ("shelve", ID, "kim", None, "2026-03-01T10:00:00Z", "2h"),
            "until: stands beside 'for'; leave one out",
        ),
        (("shelve", ID, "kim", None, "2026-03-01T09:00:00Z", None), "until: 2026-03-01T09:00:00Z has passed"),
        (
            ("shelve", ID, "kim", None, "tomorrow", None),
            "until: 'tomorrow' is no time; write 2026-03-01T17:00:00Z",
        ),
        (("shelve", ID, "kim", None, None, "0s"), "for: must be longer than nothing, e.g. 2h"),
        (
            ("shelve", ID, "kim", None, None, "2 hours"),
            "for: '2 hours' has the unknown unit 'hours'; a duration ends in one of ms, s, m, h, d",
        ),
    ],
)
def test_what_is_refused(arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        checked(*(*arguments, NOW))
    assert str(raised.value) == told


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        (b'{"by": "kim", "why": 3}', 400, "why: Expected `str | null`, got `int`"),
        (b"{}", 400, "Object missing required field `by`"),
        (b'{"by": "kim", "how": "x"}', 400, "Object contains unknown field `how`"),
        (b'{"by": "k\\u0007m"}', 400, "by: character 2 is a control (U+0007); leave it out"),
        (b'{"by": "kim", "for": "2h"}', 400, "for: only a shelving ends by itself"),
        (b'{"by": ', 400, ""),
        (b"[]", 400, ""),
        (b"\xff\xfe", 400, ""),
        (b'{"by": "' + b"[" * 200_000 + b'"}', 413, ""),
        (b"[" * 15_000, 400, "the body is nested too deeply"),
        (b'{"by": "kim", "why": "seen"}', 503, "no journal process answers at "),
    ],
    ids=range(11),
)
def test_hostile_bodies(client: TestClient[Any], alarm_id: str, body: bytes, code: int, told: str) -> None:
    path = f"/api/alarms/{alarm_id}/ack"
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == code
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        (f"{ID}/ack", 404, "no alarm of that id is open or among the newest 10,000 events"),
        ("..%2f..%2fetc/ack", 404, ""),
        ("x" * 3000 + "/ack", 404, "no alarm of that id is open or among the newest 10,000 events"),
        (f"{ID}/delete", 404, "no action 'delete'; known: ack, shelve, unshelve, suppress, "),
    ],
    ids=range(4),
)
def test_hostile_paths(client: TestClient[Any], path: str, code: int, told: str) -> None:
    answer = client.post(f"/api/alarms/{path}", json={"by": "kim"})
    assert answer.status_code == code
    assert told in answer.json()["error"]


def test_a_form_of_a_web_page_is_refused(client: TestClient[Any], alarm_id: str) -> None:
    path, text = f"/api/alarms/{alarm_id}/ack", {"Content-Type": "text/plain"}
    assert client.post(path, content=b'{"by": "kim"}', headers=text).status_code == 415
    foreign = {"Origin": "http://evil.example", "Content-Type": "application/json"}
    assert client.post(path, content=b'{"by": "kim"}', headers=foreign).status_code == 403


def test_the_api_says_what_it_answers(client: TestClient[Any]) -> None:
    paths = client.get("/docs/openapi.json").json()["paths"]
    described = paths["/api/alarms/{alarm_id}/{action}"]["post"]
    assert {"200", "400", "404", "409", "503", "504"} <= set(described["responses"])
    asked = {one["name"] for one in paths["/api/alarms"]["get"]["parameters"]}
    assert asked == {
        *("history", "shadow", "limit", "rule", "device", "severity", "state", "product", "site")
    }


def test_a_prefix_names_one_alarm() -> None:
    one, two = (
        {"alarm_id": "abcdef" + digit * 26, "ruleId": "hot", "device_id": "p1", "hub_id": None}
        for digit in "12"
    )
    assert find_one([one], "abcdef") == one["alarm_id"]
    with pytest.raises(ConfigError) as raised:
        find_one([one, two], "abcdef")
    assert str(raised.value) == (
        "'abcdef' begins the ids of 2 alarms; write more of it: abcdef1111111111 (p1/hot), "
        "abcdef2222222222 (p1/hot)"
    )


def run(*arguments: str) -> Any:
    return CliRunner().invoke(alarms, arguments)


def test_a_plant_that_does_not_run_takes_no_action(data: Path, alarm_id: str) -> None:
    result = run("ack", "--data", str(data), alarm_id[:8], "--by", "kim")
    assert isinstance(result.exception, PenstockError)
    assert not isinstance(result.exception, ConfigError)
    assert str(result.exception) == "the plant is not running; start it with: penstock run PLANT"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("abc", "'abc' is no alarm_id; write at least its first 6 digits"),
        ("temp-high-press", "'temp-high-press' is no alarm_id; write at least its first 6 digits"),
        ("000000", "no alarm '000000' is open or among the newest 10,000 events"),
    ],
)
def test_names_that_are_none(data: Path, name: str, told: str) -> None:
    result = run("ack", "--data", str(data), name)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == told


def test_filters_by_command_and_by_server(data: Path, client: TestClient[Any]) -> None:
    def both(*options: str, **query: str) -> list[str]:
        shown = json.loads(run("--data", str(data), "--json", *options).stdout)
        assert shown == client.get("/api/alarms", params=query).json()
        return [one["subject"] for one in shown]

    (one,) = ["press-01/temp-high-press"]
    assert both("--rule", "temp-high-press", rule="temp-high-press") == [one]
    assert both("--rule", "x", rule="x") == []
    assert both("--device", "press-01", device="press-01") == [one]
    assert both("--severity", "high", severity="high") == [one]
    assert both("--severity", "low", severity="low") == []
    assert both("--state", "active", "--product", "press-v1", state="active", product="press-v1") == [one]
    assert both("--state", "unacknowledged", state="unacknowledged") == []
    assert both("--state", "out-of-service", state="out-of-service") == []
    assert (
        both("--history", "--device", "press-02", history="true", device="press-02")
        == ["press-02/temp-high-press"] * 3
    )
    assert both("--shadow", shadow="true") == []
    assert client.get("/api/alarms?severity=loud").status_code == 400
    assert run("--data", str(data), "--state", "loud").exit_code == 2


def test_events_in_their_order(client: TestClient[Any], data: Path) -> None:
    history = client.get("/api/alarms?history=true").json()
    told = client.get("/api/alarms/events").json()
    assert told["last"] == 4
    assert told["events"] == history[::-1]
    assert client.get("/api/alarms/events?after=3").json() == {"last": 4, "events": history[:1]}
    assert client.get("/api/alarms/events?after=4").json() == {"last": 4, "events": []}
    assert client.get("/api/alarms/events?after=-1").status_code == 400
    assert Views(data).alarm_events(None, 2)[1] == history[1::-1]


def test_the_table(data: Path, alarm_id: str) -> None:
    lines = run("--data", str(data)).stdout.splitlines()
    assert lines[0].split() == ["severity", "subject", "since", "age", "state", "message", "alarm_id"]
    assert lines[1].startswith("high      press-01/temp-high-press  2026-03-01 09:00:00  ")
    assert "active" in lines[1]
    assert alarm_id[:12] in lines[1]
