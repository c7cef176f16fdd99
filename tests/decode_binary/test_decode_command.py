"""`penstock decode` on a bare layout and on a product file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.decode_command import decode

LAYOUT = """
fields: {temp: {as: s16, scale: 0.1, missing: 0x7FFF}, n: {}, on: {bit: 0}, who: {text: hex, size: 1}}
"""
TIMED = "time: {ago: {at: 0}}\nfields: {n: {at: 0}}\n"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    path = tmp_path / "device.yaml"
    path.write_text(LAYOUT)
    return path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(decode, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value or 0), result.output


def test_one_frame_as_json(layout: Path) -> None:
    code, output = run(str(layout), "--hex", "0x01 34 02 01 AB", "--json")
    assert code == 0
    metrics = {"temp": 30.8, "n": 2, "on": True, "who": "ab"}
    assert json.loads(output) == {"readings": [{"time": None, "metrics": metrics}]}


def test_a_file_of_frames(layout: Path, tmp_path: Path) -> None:
    lines = [
        {"payload_hex": "7fff030000", "ingest_ts": 1772355600123},
        {"payload_hex": "7f", "port": 1, "device_id": "x"},
    ]
    file = tmp_path / "frames.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    code, output = run(str(layout), str(file), "--json")
    first, second = (json.loads(line) for line in output.splitlines())
    assert code == 0
    assert first["readings"][0]["time"] == "2026-03-01T09:00:00.123Z"
    assert first["readings"][0]["metrics"]["temp"] is None
    assert second == {
        "reject": {"reason": "short", "offset": 0, "message": "the frame ends before the field at byte 0"}
    }


def test_a_time_that_counts_from_an_unknown_arrival(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(TIMED)
    _, output = run(str(path), "--hex", "05", "--json")
    assert json.loads(output)["readings"][0]["time"] is None


def test_for_people(layout: Path) -> None:
    _, output = run(str(layout), "--hex", "0134020100")
    assert "0000  01 34 02 01 00" in output
    assert any(line.split() == ["0..1", "01", "34", "temp", "30.8"] for line in output.splitlines())


def test_a_layout_with_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text("fields: {a: {as: s24e}}")
    with pytest.raises(Exception, match=r"device.yaml:1:18  fields.a.as: unknown type 's24e'"):
        run(str(path), "--hex", "00")
