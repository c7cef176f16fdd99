"""A journal and a receiver, as the supervisor would start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from connectors.journal.entries import FRAMES
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from connectors.journal.wire import socket_path
from flows.plant_file import SourceConfig
from flows.status import write_atomically
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]


class Processes:
    """Both run, and the journal answers. read: the payloads in a frame."""

    def __init__(
        self, config: SourceConfig, data: Path, read: Callable[[bytes], list[bytes]] = lambda frame: [frame]
    ) -> None:
        self.data, self.read = data, read
        self.log = data / "receiver.log"
        (data / "run").mkdir(parents=True)
        body = msgspec.json.encode({"plant": "works", "source": "line", "config": config})
        write_atomically(data / "run" / "source-line.json", body, mode=0o600)
        self.journal = self.start_journal()
        self.receiver = self.start_receiver()

    def start_journal(self) -> subprocess.Popen[bytes]:
        self.journal = self._start("connectors.journal.process", str(self.data))
        path = socket_path(self.data)
        self.until(path.exists, "the journal's socket")
        return self.journal

    def start_receiver(self) -> subprocess.Popen[bytes]:
        self.receiver = self._start("flows.receiver", str(self.data), "line")
        return self.receiver

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Poll until it holds; fails after a generous time, with the log."""
        until(condition, what, told=self.log.read_text)

    def status(self) -> dict[str, Any]:
        """What this receiver told last; nothing yet: an empty one."""
        try:
            found: dict[str, Any] = json.loads((self.data / "run" / "receiver-line.json").read_bytes())
        except FileNotFoundError:
            return {"state": "", "metrics": {}}
        return found if found["pid"] == self.receiver.pid else {"state": "", "metrics": {}}

    def wait_state(self, *states: str) -> dict[str, Any]:
        """A status is written once a second: `connected` may have become `silent` before it is seen."""
        wanted = {*states, *(("silent",) if "connected" in states else ())}
        self.until(lambda: self.status()["state"] in wanted, " or ".join(sorted(wanted)))
        return self.status()

    def journaled(self) -> list[bytes]:
        found: list[bytes] = []
        with JournalReader(self.data / "journal") as reader:
            start = reader.oldest()
            while entries := reader.read(start, 10_000, 64 << 20):
                frames = merge([entry for entry in entries if entry.kind == FRAMES])
                found.extend(frames.frame(row) for row in range(len(frames)))
                start = entries[-1].number + 1
        return [payload for frame in found for payload in self.read(frame)]

    def stall_journal(self, stalled: bool) -> None:
        """Stop the journal's process where it stands, or let it go on."""
        self.journal.send_signal(signal.SIGSTOP if stalled else signal.SIGCONT)

    def resident_bytes(self) -> int:
        """Of the receiver's process."""
        pages = int(Path(f"/proc/{self.receiver.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        self.journal.send_signal(signal.SIGCONT)
        for process in (self.receiver, self.journal):
            process.terminate()
        for process in (self.receiver, self.journal):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=log, stderr=log
            )
