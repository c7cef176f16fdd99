"""Runs the journal process for tests."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from connectors.errors import JournalError
from connectors.journal.blocking import BlockingJournalClient
from tests.waiting import LIMIT_S

ROOT = Path(__file__).parents[2]


class RunningJournal:
    """A journal process over a data directory; `with` stops it cleanly. config: of the Kafka partition
    that is the journal."""

    def __init__(
        self,
        data: Path,
        max_bytes: int = 1 << 30,
        keep_seconds: float = 0.0,
        *,
        archived: bool = False,
        config: Path | None = None,
    ) -> None:
        self.data = data
        self.options = ["--max-bytes", str(max_bytes), "--keep-seconds", str(keep_seconds)]
        self.options += ["--archived"] if archived else []
        self.options += ["--config", str(config)] if config else []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "connectors.journal.process", str(self.data)]
        self.process = subprocess.Popen([*command, *self.options], cwd=ROOT, stderr=subprocess.DEVNULL)
        self.client().close()

    def client(self, source: str = "cli") -> BlockingJournalClient:
        """A client, as soon as the process answers."""
        until = time.monotonic() + LIMIT_S
        while True:
            try:
                return BlockingJournalClient(self.data, source)
            except JournalError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT_S)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(LIMIT_S)

    def __enter__(self) -> RunningJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
