"""The output log: what is written once, in order, whole, over crashes and repeats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from connectors.errors import JournalError
from connectors.journal.columns import (
    decode_alarms,
    decode_rejects,
    decode_telemetry,
    decode_windows,
    encode_telemetry,
)
from connectors.journal.environment import Environment
from connectors.journal.output import OutputReader, OutputWriter
from connectors.journal.output_store import DATABASES, KINDS, Cursor, cursor_path
from operators.batch import Slice, StateChanges
from tests.output.made import (
    MODES,
    SECOND,
    SPEC,
    SPECS,
    START_NS,
    devices,
    event,
    made_slice,
    readings,
    reject,
    windows,
)


def writer(path: Path, **given: object) -> OutputWriter:
    return OutputWriter(path / "output", devices(), SPECS, map_bytes=1 << 28, **given)  # type: ignore[arg-type]


def test_telemetry_comes_back_as_it_was() -> None:
    first, second = readings(0, 10), readings(10, 7)
    found = decode_telemetry(encode_telemetry([first, second], SPEC, devices().names))
    assert found.productId == "press-v1"
    assert found.metrics == [("tempC", "number"), ("count", "integer"), ("mode", "string")]
    assert found.devices == ["press-00", "press-01", "press-02"]
    for column in ("seq", "ts_ns", "ingest_ns"):
        both = np.concatenate((getattr(first, column), getattr(second, column)))
        assert np.array_equal(getattr(found, column), both)
    assert np.array_equal(found.value, np.concatenate((first.value, second.value), axis=1), equal_nan=True)
    assert np.array_equal(found.quality, np.concatenate((first.quality, second.quality), axis=1))
    assert [found.devices[slot] for slot in found.device[:4]] == [
        "press-00",
        "press-01",
        "press-02",
        "press-00",
    ]
    assert found.historical.tolist() == [1 if row == 10 else 0 for row in range(17)]
    assert set(found.texts.values()) == set(MODES)


def test_alarms_are_written_at_once_and_telemetry_in_big_records(tmp_path: Path) -> None:
    log = writer(tmp_path)
    reader = OutputReader(tmp_path / "output")
    log.write(made_slice(1, 0, 20))
    log.write(made_slice(2, 20, 20, alarms=[event(25)], rejects=[reject(22)], windows=[windows(23)]))
    log.commit_due()
    assert [record.number for record in reader.read("alarms", 0)] == [1]
    assert reader.read("telemetry", 0) == []
    assert log.boundaries() == [0, 2]
    log.write(made_slice(3, 40, 20, tick_ns=START_NS + 4 * SECOND))
    log.commit_due()
    assert log.boundaries() == [3, 3]
    (telemetry,) = reader.read("telemetry", 0)
    assert (telemetry.number, telemetry.first_position, telemetry.last_position) == (1, 0, 59)
    assert len(decode_telemetry(telemetry.body)) == 60
    (closed,) = reader.read("windows", 0)
    assert decode_windows(closed.body).devices == ["press-00", "press-01"]
    (refused,) = reader.read("rejects", 0)
    assert decode_rejects(refused.body) == [reject(22)]
    (alarms,) = reader.read("alarm_batches", 0)
    assert decode_alarms(alarms.body) == [event(25).event]
    assert reader.ledger() == {("line1", "press-v1"): {"frames_in": 60, "readings_accepted": 60}}
    assert reader.reject_counts() == {("line1", "", "short"): 1}
    assert reader.alarm_counts() == {"raised": 1}
    assert [found["id"] for found in reader.open_alarms()] == [event(25).event["id"]]
    assert reader.applied() == 3
    reader.close()
    log.close()


def test_a_closed_alarm_is_no_longer_open(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write(made_slice(1, 0, 5, alarms=[event(1), event(2, 0, "cleared"), event(2, 1, "closed")]))
    log.flush()
    reader = OutputReader(tmp_path / "output")
    assert reader.open_alarms() == []
    assert [decode_alarms(r.body)[0]["data"]["transition"] for r in reader.read("alarms", 0)] == [
        "raised",
        "cleared",
        "closed",
    ]
    reader.close()
    log.close()


def test_slices_that_come_again_are_ignored_by_the_half_that_has_them(tmp_path: Path) -> None:
    log = writer(tmp_path)
    first = made_slice(1, 0, 50, alarms=[event(3)])
    log.write(first)
    log.commit_due()
    second = made_slice(2, 50, 50, alarms=[event(60)])
    log.write(second)
    log.commit_due()
    boundaries = log.boundaries()
    log.close()  # telemetry of the second slice was still gathered
    assert boundaries[0] <= 1
    again = writer(tmp_path)
    assert again.boundaries() == boundaries
    for item in (first, second):
        again.write(item)
        again.commit_due()
    again.write(made_slice(3, 100, 50, alarms=[event(110)]))
    again.flush()
    reader = OutputReader(tmp_path / "output")
    ids = [decode_alarms(record.body)[0]["id"] for record in reader.read("alarms", 0)]
    assert ids == [event(p).event["id"] for p in (3, 60, 110)]
    rows = [decode_telemetry(record.body).seq >> np.uint64(16) for record in reader.read("telemetry", 0)]
    assert np.concatenate(rows).tolist() == list(range(150))
    assert reader.ledger()["line1", "press-v1"]["frames_in"] == 150
    reader.close()
    again.close()


def test_newest_values_are_not_written_while_catching_up(tmp_path: Path) -> None:
    product = b"8 bytes!"
    told: list[tuple[bytes, bytes, bytes]] = [(b"press-00", product, b"new")]

    def state() -> StateChanges:
        found, told[:] = list(told), []
        return StateChanges(found)

    log = writer(tmp_path, state=state)
    log.write(made_slice(1, 0, 5))
    log.write(made_slice(2, 5, 5, alarms=[event(5)]))
    log.flush()
    log.close()
    told[:] = [(b"press-00", product, b"old")]
    again = writer(tmp_path, state=state)
    reader = OutputReader(tmp_path / "output")
    again.write(made_slice(1, 0, 5))
    again.commit_due()
    again.backlog_full()
    assert told  # not asked for yet
    assert reader.state("press-00") == [b"new"]
    told[:] = [(b"press-00", product, b"newer")]
    again.write(made_slice(2, 5, 5))
    again.flush()
    assert reader.state("press-00") == [b"newer"]
    assert reader.devices() == ["press-00"]
    reader.close()
    again.close()


def put_cursor(data: Path, name: str, identity: str, backlog: int = 1 << 40, **kinds: int) -> None:
    path = cursor_path(data, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(Cursor(name, identity, kinds, backlog)))


def test_records_go_when_every_configured_target_has_them(tmp_path: Path) -> None:
    log = writer(tmp_path, cut_rows=10)
    for entry in range(1, 11):
        log.write(made_slice(entry, entry * 10, 10))
        log.commit_due()
    reader = OutputReader(tmp_path / "output")
    log.look()
    assert len(reader.read("telemetry", 0)) == 10  # nobody is configured: nothing goes
    run = tmp_path / "run"
    run.mkdir()
    (run / "target-historian.json").write_text("{}")
    log.look()
    assert len(reader.read("telemetry", 0)) == 10  # its drainer has not started yet
    put_cursor(tmp_path, "historian", log.identity, telemetry=4)
    put_cursor(tmp_path, "left-over", log.identity, telemetry=1)  # no longer configured
    log.look()
    assert [record.number for record in reader.read("telemetry", 0)] == [5, 6, 7, 8, 9, 10]
    size = sum(len(r.body) + 24 for r in reader.read("telemetry", 0))
    assert reader.backlog("telemetry", 4) == (6, size)
    assert log.describe()["backlog_bytes"] == {"historian": size}
    put_cursor(tmp_path, "historian", log.identity, telemetry=10)
    log.look()
    assert reader.read("telemetry", 0) == []
    log.write(made_slice(11, 200, 10))
    log.commit_due()
    assert [record.number for record in reader.read("telemetry", 0)] == [11]
    reader.close()
    log.close()


def test_a_cursor_of_another_log_counts_for_nothing(tmp_path: Path) -> None:
    log = writer(tmp_path, cut_rows=10)
    log.write(made_slice(1, 0, 10))
    log.commit_due()
    put_cursor(tmp_path, "historian", "of-another-log", telemetry=99)
    log.look()
    reader = OutputReader(tmp_path / "output")
    assert len(reader.read("telemetry", 0)) == 1
    reader.close()
    log.close()


def test_a_full_backlog_is_named_and_ends(tmp_path: Path) -> None:
    log = writer(tmp_path, cut_rows=10)
    put_cursor(tmp_path, "historian", log.identity, backlog=2_000, telemetry=0)
    for entry in range(1, 6):
        log.write(made_slice(entry, entry * 10, 10))
        log.commit_due()
    log.look()
    told = log.backlog_full()
    assert told is not None
    assert told.startswith("historian: ")
    assert told.endswith("its backlog is 2,000")
    put_cursor(tmp_path, "historian", log.identity, backlog=2_000, telemetry=5)
    log.look()
    assert log.backlog_full() is None
    log.close()


def test_the_map_grows(tmp_path: Path) -> None:
    log = OutputWriter(tmp_path / "output", devices(), SPECS, map_bytes=1 << 19, cut_rows=2000)
    for entry in range(1, 20):
        log.write(made_slice(entry, entry * 2000, 2000))
        log.commit_due()
    reader = OutputReader(tmp_path / "output")
    rows = sum(len(decode_telemetry(r.body)) for r in reader.read("telemetry", 0, 1 << 30))
    assert rows == 19 * 2000
    reader.close()
    log.close()


def test_no_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        OutputReader(tmp_path / "output")


def test_a_log_that_is_being_made_is_none_yet(tmp_path: Path) -> None:
    """A drainer that opens it between its tables and its identity would keep its place under none."""
    made = Environment(tmp_path / "output", map_bytes=1 << 20, databases=DATABASES)
    with pytest.raises(JournalError, match="being made"):
        OutputReader(tmp_path / "output")
    made.close()
    log = writer(tmp_path)
    reader = OutputReader(tmp_path / "output")
    assert reader.identity == log.identity
    reader.close()
    log.close()


def journaled(entry: int) -> Slice:
    """What entry `entry` of an imaginary journal leads to, always the same."""
    first = entry * 20
    found = [event(first + 3), event(first + 9, 0, "closed")] if entry % 3 == 0 else []
    refused = [reject(first + 5)] if entry % 4 == 0 else []
    return made_slice(entry, first, 20, tick_ns=START_NS + first * 10_000_000, alarms=found, rejects=refused)


def run_until_killed(path: Path, last: int) -> None:
    """Write entries from the smaller boundary on, as a resumed flow does; for a child process."""
    log = OutputWriter(path / "output", devices(), SPECS, map_bytes=1 << 28, cut_rows=300)
    entry = min(log.boundaries())
    print("ready", flush=True)
    while entry < last:
        entry += 1
        log.write(journaled(entry))
        log.commit_due()
        if entry % 50 == 0:
            log.flush()
    log.flush()
    print("done", flush=True)


def test_killed_at_any_moment_nothing_is_missing_or_twice(tmp_path: Path) -> None:
    last, kills = 400, 0
    code = (
        "from pathlib import Path; from tests.output.test_output_log import run_until_killed; "
        f"run_until_killed(Path({str(tmp_path)!r}), {last})"
    )
    for delay in (0.02, 0.05, 0.09, 0.14, None):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        if delay is None:
            assert child.stdout.readline() == "done\n"
            child.wait()
        else:
            try:
                child.wait(delay)
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
                child.wait()
        child.stdout.close()
    assert kills
    reader = OutputReader(tmp_path / "output")
    expected = [journaled(entry) for entry in range(1, last + 1)]
    ids = [decode_alarms(r.body)[0]["id"] for r in reader.read("alarms", 0)]
    assert ids == [alarm.event["id"] for item in expected for alarm in item.alarms]
    batched = [e["id"] for r in reader.read("alarm_batches", 0) for e in decode_alarms(r.body)]
    assert batched == ids
    seqs = np.concatenate([decode_telemetry(r.body).seq for r in reader.read("telemetry", 0, 1 << 30)])
    assert np.array_equal(seqs, np.concatenate([item.readings[0].seq for item in expected]))
    refused = [found for r in reader.read("rejects", 0) for found in decode_rejects(r.body)]
    assert refused == [found for item in expected for found in item.rejects]
    assert reader.ledger()["line1", "press-v1"] == {"frames_in": 8000, "readings_accepted": 8000}
    numbers = {kind: [r.number for r in reader.read(kind, 0, 1 << 30)] for kind in KINDS}
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    reader.close()


def answer(number: int, **more: object) -> Slice:
    item = made_slice(number, number, 0)
    item.answers.append(
        {"id": f"{number:032x}", "accepted": True, "message": "", "alarm_id": None, "subject": None}
        | {"state": None, "at_ms": 1000 + number}
        | more
    )
    return item


def test_answers_are_kept_by_id_and_the_oldest_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.journal.output_writer.ANSWERS_KEPT", 3)
    log = writer(tmp_path)
    for number in range(1, 6):
        log.write(answer(number))
        log.commit_due()
    log.write(answer(6, id=f"{5:032x}", accepted=False))  # the same action once more
    log.commit_due()
    reader = OutputReader(tmp_path / "output")
    kept = [number for number in range(1, 7) if reader.answer(f"{number:032x}") is not None]
    assert kept == [3, 4, 5]
    told = reader.answer(f"{5:032x}")
    assert told is not None
    assert (told["accepted"], told["at_ms"]) == (True, 1005)
    log.close()


def test_a_parameter_that_was_set_stands_until_it_is_taken_back(tmp_path: Path) -> None:
    log = writer(tmp_path)
    asked = {"device_id": "press-00", "param": "tempHigh", "by": "kim", "why": "summer"}
    log.write(answer(1, param={**asked, "value": 70.0}))
    log.write(answer(2, param={**asked, "value": 71.5}))
    log.write(answer(3, param={**asked, "device_id": "press-01", "value": 1.0}, accepted=False))
    log.commit_due()
    reader = OutputReader(tmp_path / "output")
    assert reader.params() == [{**asked, "value": 71.5, "at_ms": 1002}]
    log.write(answer(4, param={**asked, "value": None}))
    log.commit_due()
    assert reader.params() == []
    log.close()


def test_events_of_shadow_rules_are_kept_and_told_to_nobody(tmp_path: Path) -> None:
    log = OutputWriter(tmp_path / "output", devices(3), SPECS, map_bytes=1 << 26)
    found = [event(1), event(2, 0, "raised", "press-01")._replace(shadow=True)]
    log.write(made_slice(1, 0, 20, alarms=found))
    log.flush()
    reader = OutputReader(tmp_path / "output")
    told = [json.loads(one.body) for one in reader.read("alarms", 0)]
    assert [one["subject"] for one in told] == ["press-00/temp-high"]
    assert [one["subject"] for one in reader.open_alarms()] == ["press-00/temp-high"]
    assert reader.alarm_counts() == {"raised": 1}
    batch = decode_alarms(reader.read("alarm_batches", 0)[0].body)
    assert [(one["subject"], one.get("shadow", False)) for one in batch] == [
        ("press-00/temp-high", False),
        ("press-01/temp-high", True),
    ]
    log.close()
