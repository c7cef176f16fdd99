"""A drainer process: hands the records of the output log to one target, in order, for ever.

Where it stands is its cursor, `DATA/cursors/TARGET.json`, replaced durably (a target that remembers by
itself can do with an older one); the flow trims behind the cursors of all targets. A target that is
away is tried again with a jittered back-off for as long as it takes. What a target will never take goes
to `DATA/failed/TARGET/` and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from connectors.backoff import Backoff
from connectors.durable import replace_durably
from connectors.errors import ConfigError, DeliveryError, JournalError, PenstockError, PermanentDeliveryError
from connectors.files.sink import AlarmsFile
from connectors.journal.output_store import (
    DEFAULT_BACKLOG,
    Cursor,
    OutputReader,
    cursor_path,
    read_cursor,
)
from connectors.json_logs import log_as_json
from connectors.sink import OutputRecord, RememberingTarget, Target
from flows.ending import end_at_signals, leave
from flows.shards import home_of
from flows.status import StatusThread, component_name, write_atomically

log = logging.getLogger("penstock")

SEND_BYTES: Final = 8 << 20
SEND_RECORDS: Final = 2_000
POLL_S: Final = 0.001  # alarms must not wait for longer
BULK_POLL_S: Final = 0.02
ALARMS_BACK_S: Final = 5.0  # the longest pause before a target of alarms is tried again
END_S: Final = 3.0  # a target that is away may keep us longer; of the 5 s in which a process ends
CURSOR_S: Final = 1.0  # how old the cursor of a target may be that remembers by itself


class Drainer:
    """One target's way through the output log."""

    def __init__(
        self,
        data: Path,
        name: str,
        reader: OutputReader,
        target: Target,
        *,
        backlog: int = DEFAULT_BACKLOG,
        backoff: Backoff | None = None,
    ) -> None:
        self.data = data
        self.name = name
        self.reader = reader
        self.target = target
        self.stop = threading.Event()
        self.state = "connecting"
        self.detail = ""
        self.sent = dict.fromkeys(target.kinds, 0)
        self.failed = 0
        self.retries = 0
        self._backoff = backoff or Backoff()
        self._path = cursor_path(data, name)
        self._identity = reader.identity
        kept = read_cursor(self._path)
        numbers = kept.kinds if kept is not None and kept.identity == self._identity else {}
        self.cursor = Cursor(
            name, self._identity, {kind: numbers.get(kind, 0) for kind in target.kinds}, backlog
        )
        self._saved_at = 0.0
        self._is_saved = False

    def run(self) -> None:
        """Until `stop` is set. Raises `ConfigError` when the target can never be opened."""
        self._save()
        try:
            while not self.stop.is_set():
                try:
                    self._open()
                    self._drain()
                except PenstockError as error:
                    if not error.retryable:
                        raise
                    self._wait(error)
        finally:
            self._settle()
            self.target.close()
            self.state = "stopped"

    def describe(self) -> dict[str, Any]:
        """Numbers for health and metrics; from any thread."""
        waiting = {kind: self.reader.backlog(kind, number) for kind, number in self.cursor.kinds.items()}
        return {
            "state": self.state,
            "detail": self.detail,
            "target": self.name,
            "lag_records": sum(records for records, _ in waiting.values()),
            "lag_bytes": sum(size for _, size in waiting.values()),
            "sent": {f"{kind}_total": count for kind, count in self.sent.items()},
            "failed_total": self.failed,
            "retries_total": self.retries,
        }

    def _open(self) -> None:
        self.state = "connecting"
        known = self.target.open()
        for kind, number in (known or {}).items():
            self.cursor.kinds[kind] = number
        self._save()
        log.info("%s is open, at %s", self.name, json.dumps(self.cursor.kinds))
        self.state, self.detail = "idle", ""

    def _drain(self) -> None:
        pause = POLL_S if "alarms" in self.target.kinds else BULK_POLL_S
        version = -1
        while not self.stop.is_set():
            newest = self.reader.version()
            if newest != version:
                while self._round() and not self.stop.is_set():
                    self.state = "sending"
                version = newest
                continue
            self.state = "idle"
            if not self._is_saved and time.monotonic() - self._saved_at >= CURSOR_S:
                self._settle()
            self.stop.wait(pause)

    def _round(self) -> bool:
        """Send once what waits of each kind; false when nothing did."""
        any_sent = False
        for kind in self.target.kinds:
            records = self.reader.read(kind, self.cursor.kinds[kind], SEND_BYTES, SEND_RECORDS)
            if records:
                self._send(records)
                any_sent = True
                if self.stop.is_set():
                    break
        return any_sent

    def _send(self, records: Sequence[OutputRecord]) -> None:
        try:
            self.target.send(records)
        except PenstockError as error:
            if not isinstance(error, PermanentDeliveryError):
                raise
            self._one_by_one(records, error)
        except Exception as error:  # a record that a target stumbles over must not stop the others
            log.exception("%s failed", self.name)
            self._one_by_one(records, error)
        else:
            self._advance(records)
        self._backoff.reset()

    def _one_by_one(self, records: Sequence[OutputRecord], error: Exception) -> None:
        """The target refused these for good: find out which, and move those aside."""
        if len(records) == 1:
            self._move_aside(records[0], error)
            self._advance(records)
            return
        self.target.close()
        known = self.target.open() or {}  # it may hold some of them
        for record in records:
            if record.number > known.get(record.kind, 0):
                self._send([record])

    def _advance(self, records: Sequence[OutputRecord]) -> None:
        kind = records[-1].kind
        self.cursor.kinds[kind] = records[-1].number
        self.sent[kind] += len(records)
        self._is_saved = False
        remembers = isinstance(self.target, RememberingTarget)
        if not remembers or time.monotonic() - self._saved_at >= CURSOR_S:
            self._settle()

    def _move_aside(self, record: OutputRecord, error: Exception) -> None:
        folder = self.data / "failed" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{record.kind}-{record.number:012d}"
        told = {
            "target": self.name,
            "kind": record.kind,
            "number": record.number,
            "first_position": record.first_position,
            "last_position": record.last_position,
            "error": f"{type(error).__name__}: {error}",
        }
        replace_durably(folder / f"{stem}.bin", record.body)
        replace_durably(folder / f"{stem}.json", json.dumps(told).encode())
        self.failed += 1
        log.error("%s never takes %s %d, moved to failed/: %s", self.name, record.kind, record.number, error)

    def _wait(self, error: PenstockError) -> None:
        self.target.close()
        pause = self._backoff.next()
        self.state, self.detail = "retrying", str(error)
        self.retries += 1
        log.warning("%s: %s; again in %.2g s", self.name, error, pause)
        self.stop.wait(pause)

    def _settle(self) -> None:
        if self._is_saved:
            return
        if isinstance(self.target, RememberingTarget):
            try:
                self.target.settle()
            except OSError as error:
                raise DeliveryError(f"{self.name}: {error}") from error
        self._save()

    def _save(self) -> None:
        body = msgspec.json.encode(self.cursor)
        if isinstance(
            self.target, RememberingTarget
        ):  # an old cursor costs it nothing, a sync costs alarms time
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, body, mode=0o600)
        else:
            replace_durably(self._path, body)
        self._saved_at, self._is_saved = time.monotonic(), True


def build_target(name: str, config: dict[str, Any], data: Path, identity: str) -> Target:
    """The target of that name; `config` is what the supervisor tells it."""
    if name == "alarms-file":
        note = data / "cursors" / "alarms-file.note"
        return AlarmsFile(data / "alarms.jsonl", note, identity)
    if name == "historian":
        from connectors.clickhouse.sink import ClickHouseTarget, historian_config

        migrating = home_of(data)[0] / "run" / "historian-migration.lock"
        return ClickHouseTarget(historian_config(config), identity, migrating)
    if name == "kafka":
        from connectors.kafka.client import kafka_target
        from connectors.kafka.sink import KafkaAlarms

        note = data / "cursors" / "kafka.note"
        return KafkaAlarms(kafka_target(config), identity, note, cursor_path(data, name))
    raise ConfigError(f"unknown target '{name}'; known: alarms-file, historian, kafka")


def backlog_of(name: str, config: dict[str, Any]) -> int:
    """How many bytes may wait for a target."""
    section = config.get("historian" if name == "historian" else "alarms") or {}
    return int(section.get("backlog", DEFAULT_BACKLOG))


def secrets_of(config: dict[str, Any]) -> list[str]:
    """Texts that must never be logged."""
    alarms, historian = config.get("alarms") or {}, config.get("historian") or {}
    found = [alarms.get("password"), urlsplit(historian.get("url", "")).password]
    return [secret for secret in found if secret]


def wait_for_log(data: Path, stop: threading.Event) -> OutputReader | None:
    """The output log's reader once the flow has made the log; None when stopped before."""
    while not stop.is_set():
        with suppress(JournalError):
            return OutputReader(data / "output")
        stop.wait(0.05)
    return None


def main(arguments: list[str] | None = None) -> int:
    """`python -m flows.drainer DATA TARGET --config FILE`"""
    parser = argparse.ArgumentParser(prog="python -m flows.drainer")
    parser.add_argument("data", type=Path)
    parser.add_argument("target")
    parser.add_argument("--config", type=Path)
    chosen = parser.parse_args(arguments)
    component = f"drainer-{chosen.target}"
    log_as_json(component_name(chosen.data, component))
    stop = threading.Event()
    late = "stopped before %s answered; what it has not acknowledged is sent again at the next start"
    end_at_signals(stop, END_S, lambda: log.warning(late, chosen.target))
    early: dict[str, Any] = {"state": "connecting", "detail": "waiting for the flow's output log"}
    status = StatusThread(chosen.data, component, lambda: early)
    status.start()
    log.info("starting, process %d", os.getpid())
    try:
        path = chosen.config or chosen.data / "run" / f"target-{chosen.target}.json"
        config = json.loads(path.read_bytes()) if path.exists() else {}
        log_as_json(component_name(chosen.data, component), secrets_of(config))
        reader = wait_for_log(chosen.data, stop)
        if reader is not None:
            target = build_target(chosen.target, config, chosen.data, reader.identity)
            backlog = backlog_of(chosen.target, config)
            backoff = Backoff(limit_s=ALARMS_BACK_S) if "alarms" in target.kinds else None
            drainer = Drainer(chosen.data, chosen.target, reader, target, backlog=backlog, backoff=backoff)
            drainer.stop = stop
            status.describe = drainer.describe
            drainer.run()
    except PenstockError as error:
        log.error("%s", error)
        failed = str(error)
        status.describe = lambda: {"state": "failed", "detail": failed}
        status.close()
        return 1 if isinstance(error, ConfigError) else 3
    status.close()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    leave(main())
