"""Commands over input that is wrong or empty: one line that says what and where, or empty results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import main

PLANT = Path(__file__).resolve().parents[2] / "examples" / "press-line"


def replay(tmp_path: Path, lines: str) -> tuple[int, Path]:
    recording, out = tmp_path / "frames.jsonl", tmp_path / "out"
    recording.write_text(lines, "utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(PLANT), "--input", str(recording), "--output", str(out)])
    return int(ended.value.code or 0), out


def test_a_bad_line_is_told_in_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = json.dumps({"ingest_ts": 1772355600000, "source": "line1", "topic": "a/b", "payload": "{}"})
    code, out = replay(tmp_path, f'{good}\n{{"ingest_ts": "soon"}}\n')
    assert code == 1
    told = capfd.readouterr().err
    assert told == f"{tmp_path / 'frames.jsonl'}:2  ingest_ts: expected `int | null`, got `str`\n"
    assert not out.exists()


def test_no_line_is_no_error(tmp_path: Path) -> None:
    code, out = replay(tmp_path, "")
    assert code == 0
    assert (out / "alarms.jsonl").read_bytes() == b""
    assert json.loads((out / "summary.json").read_bytes())["frames"]["in"] == 0
    assert json.loads((out / "state.json").read_bytes()) == {}


def test_query_only_reads(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["query", str(PLANT), "drop table alarms"])
    assert ended.value.code == 2
    assert "a query only reads; 'DROP'" in capfd.readouterr().err
