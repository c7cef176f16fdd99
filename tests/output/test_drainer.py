"""Drainers: every record once and in order, whoever fails; alarms.jsonl over SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.backoff import Backoff
from connectors.errors import AuthError, DeliveryError, PermanentDeliveryError
from connectors.fakes import BrokenTarget, RecordingTarget
from connectors.files.sink import AlarmsFile
from connectors.journal.output import OutputReader, OutputWriter
from connectors.journal.output_store import cursor_path, read_cursor
from connectors.sink import OutputRecord, Target
from flows.drainer import Drainer
from tests.output.made import SECOND, SPECS, START_NS, devices, event, made_slice, reject
from tests.waiting import LIMIT_S, until


@contextmanager
def running(drainer: Drainer) -> Iterator[list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            drainer.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        drainer.stop.set()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[OutputWriter]:
    made = OutputWriter(tmp_path / "output", devices(), SPECS, map_bytes=1 << 28)
    yield made
    made.close()


def put(log: OutputWriter, entry: int) -> None:
    first = entry * 20
    item = made_slice(
        entry,
        first,
        20,
        tick_ns=START_NS + entry * 2 * SECOND,
        alarms=[event(first + 1), event(first + 2)],
        rejects=[reject(first)],
    )
    log.write(item)
    log.commit_due()


def drainer(tmp_path: Path, target: Target, name: str = "test") -> Drainer:
    reader = OutputReader(tmp_path / "output")
    return Drainer(tmp_path, name, reader, target, backoff=Backoff(0.001, 0.01))


def numbers(target: RecordingTarget | BrokenTarget, kind: str) -> list[int]:
    return [record.number for record in target.records if record.kind == kind]


def test_records_come_in_order_and_the_cursor_says_how_far(tmp_path: Path, log: OutputWriter) -> None:
    target = RecordingTarget()
    put(log, 1)
    with running(drainer(tmp_path, target)):
        until(lambda: len(numbers(target, "alarms")) == 2)
        put(log, 2)
        until(
            lambda: [len(numbers(target, kind)) for kind in ("alarms", "telemetry", "rejects")] == [4, 1, 1]
        )
    assert numbers(target, "alarms") == [1, 2, 3, 4]
    cursor = read_cursor(cursor_path(tmp_path, "test"))
    assert cursor is not None
    assert cursor.kinds == {"telemetry": 1, "windows": 0, "alarms": 4, "rejects": 1}
    again = RecordingTarget()
    put(log, 3)
    with running(drainer(tmp_path, again)):
        until(lambda: len(numbers(again, "alarms")) == 2)
    assert numbers(again, "alarms") == [5, 6]


def test_a_target_that_is_away_is_tried_until_it_comes_back(tmp_path: Path, log: OutputWriter) -> None:
    target = BrokenTarget([DeliveryError("away"), None, DeliveryError("away"), None, None])
    put(log, 1)
    made = drainer(tmp_path, target)
    with running(made):
        until(lambda: len(numbers(target, "alarms")) == 2)
    assert numbers(target, "alarms") == [1, 2]
    assert made.retries == 2


def test_a_commit_is_found_whenever_it_is_looked_for(tmp_path: Path, log: OutputWriter) -> None:
    """The drainer looks while the log commits; none of many commits may wait for a later one."""
    target = RecordingTarget()
    with running(drainer(tmp_path, target)):
        for entry in range(1, 200):
            put(log, entry)
            until(lambda wanted=2 * entry: len(numbers(target, "alarms")) == wanted)  # type: ignore[misc]


class Picky(RecordingTarget):
    """Never takes alarm 3, and stumbles over alarm 5."""

    def send(self, records: object) -> None:
        for record in records:  # type: ignore[attr-defined]
            if record.kind == "alarms" and record.number == 3:
                raise PermanentDeliveryError("no threes")
            if record.kind == "alarms" and record.number == 5:
                raise ValueError("five")
        super().send(records)  # type: ignore[arg-type]


def test_what_a_target_never_takes_is_moved_aside(tmp_path: Path, log: OutputWriter) -> None:
    target = Picky()
    for entry in (1, 2, 3):
        put(log, entry)
    made = drainer(tmp_path, target)
    with running(made):
        until(lambda: made.cursor.kinds["alarms"] == 6)
    assert numbers(target, "alarms") == [1, 2, 4, 6]
    assert made.failed == 2
    failed = tmp_path / "failed" / "test"
    told = json.loads((failed / "alarms-000000000003.json").read_text())
    assert told["error"] == "PermanentDeliveryError: no threes"
    assert json.loads((failed / "alarms-000000000003.bin").read_bytes())["id"] == event(41).event["id"]
    assert json.loads((failed / "alarms-000000000005.json").read_text())["error"] == "ValueError: five"


def test_a_refused_password_ends_the_drainer(tmp_path: Path, log: OutputWriter) -> None:
    with running(drainer(tmp_path, BrokenTarget([AuthError("who are you?")]))) as raised:
        until(lambda: raised)
    assert str(raised[0]) == "who are you?"


def alarm_records(first: int, count: int) -> list[OutputRecord]:
    return [
        OutputRecord("alarms", n, n, n, json.dumps({"id": n}).encode()) for n in range(first, first + count)
    ]


def ids(path: Path) -> list[int]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def alarms_file(tmp_path: Path, identity: str = "log") -> AlarmsFile:
    return AlarmsFile(tmp_path / "alarms.jsonl", tmp_path / "note", identity)


def test_the_file_knows_its_last_record_and_cuts_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "alarms.jsonl"
    target = alarms_file(tmp_path)
    assert target.open() is None
    target.send(alarm_records(1, 3))
    target.settle()
    target.send(alarm_records(4, 2))  # after the note
    with path.open("ab") as file:
        file.write(b'{"id": 6')  # as a crash may leave it
    target = alarms_file(tmp_path)
    assert target.open() == {"alarms": 5}
    target.send(alarm_records(6, 1))
    assert ids(path) == [1, 2, 3, 4, 5, 6]
    target.close()


def test_a_file_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "alarms.jsonl"
    target = alarms_file(tmp_path)
    target.open()
    target.send(alarm_records(1, 2))
    path.rename(tmp_path / "old.jsonl")
    target.send(alarm_records(3, 2))
    assert ids(path) == [3, 4]
    target.close()
    target = alarms_file(tmp_path)
    assert target.open() == {"alarms": 4}
    target.close()


def test_a_note_of_another_log_counts_for_nothing(tmp_path: Path) -> None:
    target = alarms_file(tmp_path)
    target.open()
    target.send(alarm_records(1, 2))
    target.settle()
    target.close()
    other = alarms_file(tmp_path, "another")
    assert other.open() is None
    other.close()


def test_killed_at_any_moment_every_alarm_is_in_the_file_once(tmp_path: Path, log: OutputWriter) -> None:
    command = [sys.executable, "-m", "flows.drainer", str(tmp_path), "alarms-file"]
    entry = 0
    path = tmp_path / "alarms.jsonl"
    for _ in range(4):
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wanted = 2 * entry + 30
        last = entry + 300  # no more than it catches up with, however late it starts
        while not path.exists() or path.read_bytes().count(b"\n") < wanted:
            if entry < last:
                entry += 1
                put(log, entry)
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    for _ in range(20):
        entry += 1
        put(log, entry)
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: path.read_bytes().count(b"\n") >= 2 * entry)
    child.terminate()
    assert child.wait(LIMIT_S) == 0
    found = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert found == [event(e * 20 + n).event["id"] for e in range(1, entry + 1) for n in (1, 2)]
    status = json.loads((tmp_path / "run" / "drainer-alarms-file.json").read_text())
    assert status["state"] == "stopped"
    assert status["lag_records"] == 0
