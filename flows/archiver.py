"""The archiver process: keeps the journal's entries as Parquet, and tells the journal which ones it has.

The journal trims nothing that is not in the archive. An archive that is away or full is tried again
for as long as it takes; meanwhile everything else goes on, until the journal is at its cap.

`python -m flows.archiver DATA --config FILE`
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from connectors.backoff import Backoff
from connectors.errors import ConfigError, JournalError, PenstockError
from connectors.journal.archive_store import open_store
from connectors.journal.archiver import Archiver, describe
from connectors.journal.blocking import JournalWatch
from connectors.journal.reader import JournalReader
from connectors.journal.server import ARCHIVER
from connectors.json_logs import log_as_json
from flows.ending import leave
from flows.status import StatusThread, component_name

log = logging.getLogger("archiver")

POLL_S: Final = 1.0
MILLISECOND: Final = 1_000_000


class ArchiverProcess:
    """Archives until `stop`, and reports to the journal."""

    def __init__(self, data: Path, archiver: Archiver, stop: threading.Event) -> None:
        self.archiver = archiver
        self.stop = stop
        self.state = "connecting"
        self.detail = ""
        self.retries = 0
        self._backoff = Backoff()
        self._watch = JournalWatch(data, ARCHIVER)

    def run(self) -> None:
        """Raises PenstockError for what trying again cannot mend."""
        with closing(self._watch):
            while not self.stop.is_set():
                try:
                    wrote = self.archiver.step()
                except (OSError, JournalError) as error:
                    if isinstance(error, JournalError) and not error.retryable:
                        raise
                    self._wait(error)
                    continue
                self._backoff.reset()
                self._watch.durable(self.archiver.entry)
                missing = self.archiver.missing
                self.state = "sending" if wrote else "idle"
                self.detail = (
                    f"entries {missing[0]} to {missing[1]} were never archived"
                    if missing
                    else f"{self.archiver.files} files, {self.archiver.bytes / 1e6:,.1f} MB"
                )
                if not wrote:
                    self._rest()
        self.state = "stopped"

    def describe(self) -> dict[str, Any]:
        """For the status file; from any thread."""
        try:
            numbers = describe(self.archiver)
        except JournalError:
            numbers = {}
        return {"state": self.state, "detail": self.detail, "retries_total": self.retries, **numbers}

    def _rest(self) -> None:
        """A second without reading, the journal's messages taken all the while."""
        self._watch.wait(0.0)
        self.stop.wait(POLL_S)

    def _wait(self, error: Exception) -> None:
        self.archiver.close()
        pause = self._backoff.next()
        self.state, self.detail = "retrying", _words(error, self.archiver.store.where)
        self.retries += 1
        log.warning("%s; again in %.2g s", self.detail, pause)
        self.stop.wait(pause)


def _words(error: Exception, where: str) -> str:
    if not isinstance(error, OSError):
        return str(error)
    place = error.filename if isinstance(error.filename, str) else where
    return f"cannot write the archive {place}: {error.strerror or error}"


def wait_for_journal(data: Path, stop: threading.Event) -> JournalReader | None:
    """The journal's reader once there is a journal; None when stopped before."""
    while not stop.is_set():
        try:
            reader = JournalReader(data / "journal")
        except JournalError:
            stop.wait(0.05)
            continue
        if reader.identity():
            return reader
        reader.close()
        stop.wait(0.05)
    return None


def main(arguments: list[str] | None = None) -> int:
    """`python -m flows.archiver DATA --config FILE`"""
    parser = argparse.ArgumentParser(prog="python -m flows.archiver")
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    log_as_json(component_name(chosen.data, ARCHIVER))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    early: dict[str, Any] = {"state": "connecting", "detail": "waiting for the journal"}
    status = StatusThread(chosen.data, ARCHIVER, lambda: early)
    status.start()
    log.info("starting, process %d", os.getpid())
    try:
        config = json.loads(chosen.config.read_bytes())
        store = open_store(config["path"], chosen.data)
        reader = wait_for_journal(chosen.data, stop)
        if reader is not None:
            archiver = Archiver(
                reader,
                store,
                chosen.data / "cursors" / "archive.msgpack",
                keep_ms=int(config["keep"]) // MILLISECOND,
                journal_bytes=int(config["journal_bytes"]),
            )
            process = ArchiverProcess(chosen.data, archiver, stop)
            status.describe = process.describe
            process.run()
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
