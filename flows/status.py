"""Status files: what each process tells about itself, once a second, for health and metrics.

A status file is `DATA/run/COMPONENT.json`, replaced atomically, so a reader never sees half of
one, and what a dead process said last stays readable.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_atomically(path: Path, body: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `body`; a crash leaves the old or the new content, never a mixture."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(handle, body)
    finally:
        os.close(handle)
    os.replace(beside, path)


def read_status(data: Path) -> dict[str, dict[str, Any]]:
    """Every component's newest status file, by component."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((data / "run").glob("*.json")):
        with suppress(OSError, ValueError):
            body = json.loads(path.read_bytes())
            if isinstance(body, dict) and "component" in body:
                found[str(body["component"])] = body
    return found


class StatusThread(threading.Thread):
    """Writes what `describe()` returns once a second, until the process ends."""

    def __init__(self, data: Path, component: str, describe: Callable[[], dict[str, Any]]) -> None:
        super().__init__(name=f"status-{component}", daemon=True)
        self.path = data / "run" / f"{component}.json"
        self.component = component
        self.describe = describe
        self.started_ms = int(time.time() * 1000)
        self.ended = threading.Event()

    def run(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.write()
            if self.ended.wait(1.0):
                return

    def write(self) -> None:
        """Write now."""
        body = {
            "component": self.component,
            "pid": os.getpid(),
            "started_ms": self.started_ms,
            "updated_ms": int(time.time() * 1000),
            **self.describe(),
        }
        with suppress(OSError):  # a full disk must not end the process that tells of it
            write_atomically(self.path, json.dumps(body).encode())

    def close(self) -> None:
        """Write once more and end."""
        self.ended.set()
        self.write()
