"""Child processes of the supervisor: started, watched, restarted with back-off, stopped.

A child writes JSON log lines to stderr, which goes to `logs/NAME.jsonl`; it ends cleanly on
SIGTERM, and dies with the supervisor (PR_SET_PDEATHSIG), so nothing is left behind when the
supervisor itself is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

LAST_BYTES = 4096
LOG_LIMIT = 20 << 20  # bytes; beyond it the log is moved to NAME.1.jsonl at the next look
BACKOFF_FIRST_S = 0.25
BACKOFF_LIMIT_S = 30.0
STEADY_S = 60.0  # a child that ran so long begins with the first back-off again
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _begin_child(nice: int) -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if nice:
        os.nice(nice)


@contextmanager
def _readable(content: bytes | None) -> Iterator[tuple[int, ...]]:
    """A descriptor to read the content from, none where there is none: memory, not a pipe, whose reader
    would have to be waited for where there is much of it."""
    if content is None:
        yield ()
        return
    number = os.memfd_create("configuration")
    try:
        with os.fdopen(os.dup(number), "wb") as file:
            file.write(content)
        yield (number,)
    finally:
        os.close(number)


@dataclass(slots=True)
class Child:
    """One component. `order` is the rank in which it starts; stopping goes the other way. `nice`:
    how far it stands back where processors are short. `configuration`: what it reads at its next start
    from `--config`, a descriptor that only it inherits: it may hold secrets, so no file has it."""

    name: str
    module: str
    arguments: Sequence[str]
    order: int
    log: Path
    nice: int = 0
    configuration: bytes | None = None
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started_at: float = 0.0
    next_start: float = 0.0
    backoff_s: float = BACKOFF_FIRST_S
    last_exit: int | None = None
    stopping: bool = False
    history: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    @property
    def state(self) -> str:
        """running | waiting (for its next start) | stopped"""
        if self.pid is not None:
            return "running"
        return "stopped" if self.stopping else "waiting"

    def start(self, environment: dict[str, str]) -> None:
        """Start now; its stderr and stdout are appended to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        rotate(self.log)
        with self.log.open("ab") as log, _readable(self.configuration) as descriptors:
            given = [f"--config=/dev/fd/{number}" for number in descriptors]
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments, *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=partial(_begin_child, self.nice),
                pass_fds=descriptors,
            )
        self.started_at = time.monotonic()

    def watch(self, environment: dict[str, str]) -> str | None:
        """Look once: restart it when it has ended and its back-off is over. Returns what
        happened, in words for the log, or None."""
        if self.stopping or self.pid is not None:
            return None
        now = time.monotonic()
        if self.process is not None:
            self.last_exit = self.process.returncode
            self.history.append(self.last_exit)
            if now - self.started_at > STEADY_S:
                self.backoff_s = BACKOFF_FIRST_S
            self.process = None
            self.next_start = now + self.backoff_s
            self.backoff_s = min(self.backoff_s * 2, BACKOFF_LIMIT_S)
            why = last_error(self.log) if self.last_exit > 0 else ""
            how = f"{exit_words(self.last_exit)}: {why}" if why else exit_words(self.last_exit)
            pause = self.next_start - now
            return f"{self.name} ended ({how}); starting again in {pause:.2g} s"
        if now >= self.next_start:
            self.restarts += 1
            self.start(environment)
            return f"{self.name} started again (restart {self.restarts})"
        return None

    def terminate(self) -> None:
        """Ask it to stop."""
        self.stopping = True
        if self.pid is not None and self.process is not None:
            self.process.terminate()

    def wait(self, seconds: float) -> bool:
        """True when it has ended within `seconds`; else it is killed and the answer is False."""
        if self.process is None:
            return True
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        return True


def exit_words(code: int | None) -> str:
    """`exit 1` or `SIGKILL`."""
    if code is None:
        return "running"
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit {code}"


def last_error(log: Path) -> str:
    """What the last line of a component's log says, where that is an error of its own words."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_BYTES))
            line = json.loads(file.read().splitlines()[-1])
        found = line.get("error") or (line["event"] if line.get("level") == "error" else "")
    except (OSError, ValueError, LookupError, AttributeError):  # no log, or the trace of a crash
        return ""
    return str(found).partition("\n")[0]


def rotate(log: Path) -> None:
    """Move a log that has grown beyond LOG_LIMIT aside; one old one is kept."""
    try:
        if log.stat().st_size > LOG_LIMIT:
            os.replace(log, log.with_suffix(".1.jsonl"))
    except FileNotFoundError:
        pass
