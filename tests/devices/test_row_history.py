"""`penstock devices --history`: what the rows of a device were, by file, change and correction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient

from flows.cli import cli
from flows.server import make_app
from tests.devices.test_two_products import BEGIN, folder_of, line
from tests.server.looked_at import make_data

ROWS = """device_id,productId,site_id,valid_from
p1,press,ulsan,
p1,press,busan,2026-02-01
p2,press,ulsan,
"""


def said(second: int, **data: Any) -> dict[str, Any]:
    change = {"op": "upsert", "table": "devices", "data": {"device_id": "p1", **data}}
    at = BEGIN + 1000 * second
    return {"ingest_ts": at, "source": "changes", "topic": "master", "payload": json.dumps(change)}


def history(frames: list[dict[str, Any]], tmp_path: Path) -> list[tuple[Any, ...]]:
    folder, data = folder_of(tmp_path / "plant"), tmp_path / "data"
    (folder / "devices.csv").write_text(ROWS)
    make_data(data, folder, [json.dumps(one) for one in frames])
    shown = CliRunner().invoke(
        cli, ["devices", str(folder), "--data", str(data), "--history", "p1", "--json"]
    )
    assert shown.exit_code == 0, shown.output
    rows = json.loads(shown.output)
    with TestClient(make_app(data, "127.0.0.1:8080"), base_url="http://127.0.0.1:8080") as client:
        assert client.get("/api/devices/p1/history").json() == rows
        assert client.get("/api/devices/p9/history").status_code == 404
    told = CliRunner().invoke(cli, ["devices", str(folder), "--data", str(data), "--history", "p1"])
    assert told.output.count("site_id=") == len(rows)
    wrong = CliRunner().invoke(cli, ["devices", str(folder), "--data", str(data), "--history", "p9"])
    assert "no device 'p9' in the master data" in str(wrong.exception)
    return [(one["from"], one["until"], one["row"]["site_id"], one["row"].get("name")) for one in rows]


FEBRUARY = "2026-02-01T00:00:00.000Z"
SAID = "2026-03-01T09:00:05.000Z"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], [(FEBRUARY, None, "busan", None), (None, FEBRUARY, "ulsan", None)]),
        (
            [said(5, site_id="seoul")],
            [(SAID, None, "seoul", None), (FEBRUARY, SAID, "busan", None), (None, FEBRUARY, "ulsan", None)],
        ),
        (
            [said(5, name="Press", valid_from="")],
            [(FEBRUARY, None, "busan", "Press"), (None, FEBRUARY, "ulsan", "Press")],
        ),
    ],
)
def test_rows_and_since_when(
    changes: list[dict[str, Any]], expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    assert history([line(1, {"tempC": 1}), *changes, line(9, {"tempC": 2})], tmp_path) == expected
