"""A component that ends says why in its log; the supervisor's line repeats it."""

from __future__ import annotations

from pathlib import Path

from flows.processes import Child, last_error
from tests.waiting import LIMIT_S


def test_the_reason_stands_in_the_line(tmp_path: Path) -> None:
    child = Child("gate", "json.tool", ["no such file"], 0, tmp_path / "gate.jsonl")
    child.start({})
    assert child.process is not None
    child.process.wait(LIMIT_S)
    child.log.write_text('{"level": "info", "event": "up"}\n{"level": "error", "event": "no port\\ntrace"}\n')
    told = child.watch({}) or ""
    assert told.startswith("gate ended (exit ")
    assert told.endswith(": no port); starting again in 0.25 s")


def test_no_reason_where_there_is_none(tmp_path: Path) -> None:
    log = tmp_path / "gate.jsonl"
    assert last_error(log) == ""
    log.write_text("")
    assert last_error(log) == ""
    log.write_text('Traceback\nValueError: "x"\n')
    assert last_error(log) == ""
    log.write_text('{"level": "info", "event": "stopped"}\n')
    assert last_error(log) == ""
    log.write_text('{"event": "failed", "error": "no port"}\n')
    assert last_error(log) == "no port"
