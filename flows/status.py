"""Status files: what each process tells about itself, once a second, for health and metrics.

A status file is `DATA/run/COMPONENT.json`, replaced atomically, so a reader never sees half of
one, and what a dead process said last stays readable. The processes of one of several shards have
its number behind their names, `flow-2`; whoever asks with that shard's folder is told of `flow`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from flows.shards import home_of

LOOKS: Final = 10  # a second, at whether there is news
OF_A_SHARD: Final = ("journal", "flow", "drainer-", "archiver")  # processes that each shard has


def component_name(data: Path, component: str) -> str:
    """The name of a process over a data directory, or over the folder of a shard."""
    shard = home_of(data)[1]
    return component if shard is None else f"{component}-{shard}"


def is_of_shard(name: str, bases: Collection[str]) -> bool:
    """Whether `flow-2` is a process of a shard whose own name, `flow`, is among some."""
    base, _, number = name.rpartition("-")
    return number.isdigit() and base.startswith(OF_A_SHARD) and base in bases


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
    """Every component's newest status file, by component. data: of a plant, or the folder of a shard,
    whose own processes then have the names that an only shard's have, and other shards' are left out."""
    home, shard = home_of(data)
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((home / "run").glob("*.json")):
        with suppress(OSError, ValueError):
            body = json.loads(path.read_bytes())
            if isinstance(body, dict) and "component" in body:
                found[str(body["component"])] = body
    return found if shard is None else _of_shard(found, shard)


def _of_shard(found: dict[str, dict[str, Any]], shard: int) -> dict[str, dict[str, Any]]:
    mine: dict[str, dict[str, Any]] = {}
    for name, body in found.items():
        base, _, number = name.rpartition("-")
        if not (number.isdigit() and base.startswith(OF_A_SHARD)):
            mine[name] = body
        elif int(number) == shard:
            mine[base] = body
    return mine


class StatusThread(threading.Thread):
    """Writes what `describe()` returns once a second, until the process ends; and within a tenth of one when
    what `state()` returns is another than before. state: as cheap as a look at a variable."""

    def __init__(
        self,
        data: Path,
        component: str,
        describe: Callable[[], dict[str, Any]],
        state: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(name=f"status-{component}", daemon=True)
        self.component = component_name(data, component)
        self.path = home_of(data)[0] / "run" / f"{self.component}.json"
        self.describe, self.state = describe, state
        self.started_ms = int(time.time() * 1000)
        self.ended = threading.Event()

    def run(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self.ended.is_set():
            said = self.state()
            self.write()
            for _ in range(LOOKS):
                if self.ended.wait(1.0 / LOOKS) or self.state() != said:
                    break

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
        if self.is_alive():
            self.join(1.0)  # two that write at once would write one file
        self.write()
