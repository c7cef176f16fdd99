"""Files dropped by rename; safe = moved to done/."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from connectors.files.config import FilesConfig
from operators.spec import MILLISECOND
from tests.conformance.subject import CAP, FLOOD_PAYLOAD, Subject
from tests.waiting import until


class FilesSubject(Subject):
    """A file of rows each time."""

    exactly_once = True

    def __init__(self, tmp: Path) -> None:
        self.waivers = {
            "secrets": "a files source has none",
            "silence": "a folder without files is what it is most of the time",
            "who_waits_for_the_journal_is_not_silent": "a folder is never silent",
            "network": "a folder has no network",
            "back_off": "a folder is looked at as often as `poll` says",
        }
        self._inbox = tmp / "inbox"
        self._count = 0
        self._sizes: dict[str, int] = {}
        self.config = FilesConfig(
            watch=str(self._inbox),
            pattern="*.csv",
            header=False,
            poll=20 * MILLISECOND,
            settle=40 * MILLISECOND,
            max_frame=CAP,
        )

    def send(self, payloads: Sequence[bytes]) -> None:
        self._inbox.mkdir(exist_ok=True)
        self._count += 1
        name = f"{self._count:05d}.csv"
        beside = self._inbox / f".{name}"
        beside.write_bytes(b"".join(payload + b"\n" for payload in payloads))
        os.utime(beside, (self._count, self._count))
        beside.rename(self._inbox / name)
        self._sizes[name] = len(payloads)

    def told_safe(self) -> int:
        done = self._inbox / "done"
        return sum(self._sizes[path.name] for path in done.iterdir()) if done.is_dir() else 0

    def settle(self) -> None:
        until(lambda: self.told_safe() >= sum(self._sizes.values()), "files to be moved to done/")

    def flood(self, over: threading.Event) -> None:
        """A hundred files of a megabyte; more would only have to be read afterwards."""
        for _ in range(100):
            self.send([b"x" * FLOOD_PAYLOAD] * 20)
            if over.wait(0.01):
                return
        over.wait()

    def break_peer(self) -> None:
        """The folder's file system goes away and comes back empty."""
        gone = self._inbox.with_name("gone")
        self._inbox.rename(gone)
        time.sleep(0.3)
        shutil.rmtree(gone)
        self._sizes.clear()
