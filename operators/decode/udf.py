"""Frames decoded by a plant's own Python (`decode: {udf: products/torano.py:decode}`): the slow way.

The function runs in a child process, a few dozen frames a call. Where a call fails, its frames are tried in
halves until the guilty one stands alone: that one becomes a `udf` reject, the others have their answers.

What a frame gives depends on its bytes and the source alone, not on the machine or the cut of the batch:
a call that takes long is given up, and its frame decided on in a fresh process by counting lines of Python.
"""

from __future__ import annotations

import math
import os
import select
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from operators.batch import ABSENT, BAD, GOOD, TYPE_BREACH, Float64, FrameBatch, Int64
from operators.decode.columns import IGNORED, Decoded
from operators.decode.json_kernels import EARLIEST_NS, LATEST_NS
from operators.decode.udf_spec import UdfSpec
from operators.rejects import Reason
from operators.text import text_code

FRAMES_A_CALL: Final = 64
MOST_LINES: Final = 20_000_000  # lines of Python that one frame may take
CALL_CPU_S: Final = 0.05  # processor time of a call before its lines are counted, and
FRAME_CPU_S: Final = 0.0005  # for each of its frames: 64 of them run fewer than MOST_LINES in it
COUNTED_CPU_S: Final = 60.0  # of a call whose lines are counted: a single line may take for ever
WAITING_S: Final = 30.0  # of the clock on the wall, for a function that waits and computes nothing
LOAD_CPU_S: Final = 30.0
_CHILD: Final = Path(__file__).with_name("udf_child.py")


class Failed(NamedTuple):
    """Why a call gave no answers. kind: load, raised, memory, lines, slow or crashed."""

    kind: str
    told: str


class Child:
    """One process with the function loaded; `call` after `call`, None of them at the same time."""

    def __init__(self, spec: UdfSpec) -> None:
        environ = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8", "PATH": os.defpath}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._end = weakref.finalize(self, _end, self._process)
        self.alive = True
        task = {
            "file": spec.file,
            "function": spec.function,
            "source": spec.source,
            "memory": spec.memory,
        }
        reply = self._ask(task, LOAD_CPU_S)
        self.failed = reply if isinstance(reply, Failed) else None

    def call(self, arguments: Mapping[str, Any], lines: int, cpu_s: float) -> list[Any] | Failed:
        """An answer for each frame. lines: counted up to so many, 0 = not counted."""
        if self.failed is not None:
            return self.failed
        reply = self._ask({**arguments, "lines": lines}, cpu_s)
        return reply if isinstance(reply, Failed) else list(reply["answers"])

    def close(self) -> None:
        """End the process."""
        self.alive = False
        self._end()

    def _ask(self, message: Any, cpu_s: float) -> dict[str, Any] | Failed:
        body = msgspec.msgpack.encode(message)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("<Q", len(body)) + body)
            self._process.stdin.flush()
        except OSError:
            return self._crashed()
        reply = self._reply(cpu_s)
        if isinstance(reply, Failed):
            self.close()
            return reply
        found: dict[str, Any] = msgspec.msgpack.decode(reply)
        if "kind" in found:
            if found["kind"] != "raised":
                self.close()
            return Failed(found["kind"], found["error"])
        return found

    def _reply(self, cpu_s: float) -> bytes | Failed:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        began, waited = self._cpu(), time.monotonic()
        data, size = b"", 8
        while len(data) < size:
            ready, _, _ = select.select([pipe], [], [], 0.02)
            if ready:
                part = os.read(pipe, size - len(data))
                if not part:
                    return self._crashed()
                data += part
                if size == 8 and len(data) == 8:
                    size += struct.unpack("<Q", data)[0]
            elif self._cpu() - began > cpu_s:
                return Failed("slow", f"more than {cpu_s:g} s of processor time")
            elif time.monotonic() - waited > cpu_s + WAITING_S:
                return Failed("slow", f"no answer after {cpu_s + WAITING_S:g} s")
        if self._cpu() - began > cpu_s:  # found late: its lines are counted all the same
            return Failed("slow", f"more than {cpu_s:g} s of processor time")
        return data[8:]

    def _crashed(self) -> Failed:
        self.close()
        code = self._process.returncode
        return Failed(
            "crashed", f"its process ended with {code}" if code >= 0 else f"signal {-code} ended it"
        )

    def _cpu(self) -> float:
        """Processor time of the child so far; 0 where it is over."""
        try:
            return time.clock_gettime((~self._process.pid << 3) | 2)  # CPUCLOCK_SCHED of Linux
        except OSError:
            return 0.0


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                continue
    try:
        process.wait(0.05)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class UdfDecoder:
    """A decoder whose layout is a function of the plant; see docs/decode.md for its interface."""

    def __init__(self, spec: UdfSpec, metrics: tuple[tuple[str, str], ...]) -> None:
        self.spec, self.metrics = spec, metrics
        self.param_names = spec.params
        self._column = {name: at for at, (name, _) in enumerate(metrics)}
        self._child: Child | None = None

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`; the process is started by the first frame."""
        answers: list[Any] = []
        for first in range(0, len(rows), FRAMES_A_CALL):
            stop = min(first + FRAMES_A_CALL, len(rows))
            given = self._arguments(frames, rows[first:stop], params[:, first:stop])
            answers += self._answers(given)
        return self._columns(frames, rows, answers)

    def _arguments(self, frames: FrameBatch, rows: Int64, params: Float64) -> dict[str, list[Any]]:
        address = [frames.addresses[at] for at in frames.address[rows].tolist()]
        columns = [params[:, at].tolist() for at in range(len(rows))]
        return {
            "frames": [frames.frame(row) for row in rows.tolist()],
            "ports": [None if one.port < 0 else one.port for one in address],
            "addresses": [one.topic for one in address],
            "received": (frames.ingest_ns[rows] // 1_000_000).tolist(),
            "params": [
                {name: value for name, value in zip(self.param_names, column, strict=True) if value == value}
                for column in columns
            ],
        }

    def _answers(self, given: Mapping[str, list[Any]]) -> list[Any]:
        """An answer, or a `Failed`, for each frame."""
        count = len(given["frames"])
        found = self._call(given, 0, CALL_CPU_S + count * FRAME_CPU_S)
        if isinstance(found, list):
            return found
        if found.kind == "load":
            return [found] * count
        if count > 1:
            half = count // 2
            return self._answers({name: column[:half] for name, column in given.items()}) + self._answers(
                {name: column[half:] for name, column in given.items()}
            )
        if found.kind == "raised":
            return [found]
        self._close()  # what the calls before left behind must not decide
        found = self._call(given, MOST_LINES, COUNTED_CPU_S)
        self._close()
        return found if isinstance(found, list) else [found]

    def _call(self, given: Mapping[str, list[Any]], lines: int, cpu_s: float) -> list[Any] | Failed:
        if self._child is None or not self._child.alive:
            self._child = Child(self.spec)
        return self._child.call(given, lines, cpu_s)

    def _close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _told(self, failed: Failed) -> str:
        where = f"{self.spec.file}:{self.spec.function}"
        limits = {
            "lines": f"more than {MOST_LINES // 1_000_000} million lines of Python for one frame",
            "memory": f"more memory than {self.spec.memory // 1_000_000}MB",
        }
        return f"{where}: {limits.get(failed.kind, failed.told)}"

    def _columns(self, frames: FrameBatch, rows: Int64, answers: Sequence[Any]) -> Decoded:
        status, place = np.zeros(len(rows), np.int32), np.full(len(rows), -1, np.int64)
        unknown_frame = np.zeros(len(rows), np.uint8)
        detail: dict[int, str] = {}
        unknown: dict[str, int] = {}
        found: list[tuple[int, int, int | None, dict[str, Any]]] = []
        for at, answer in enumerate(answers):
            readings = self._told(answer) if isinstance(answer, Failed) else checked(answer)
            if isinstance(readings, str):
                status[at], detail[at] = Reason.udf, readings
                continue
            wrong = next((why for _, values in readings if (why := _no_number(values))), "")
            if wrong:
                status[at], detail[at] = Reason.bad_number, wrong
                continue
            if not readings:
                status[at] = IGNORED
            for index, (when, values) in enumerate(readings):
                found.append((at, index, when, values))
                for name in values:
                    if name not in self._column:
                        unknown[name] = unknown.get(name, 0) + 1
                        unknown_frame[at] = 1
        value = np.full((len(self.metrics), len(found)), np.nan)
        quality = np.full((len(self.metrics), len(found)), ABSENT, np.uint8)
        texts: dict[int, str] = {}
        for n, (_, _, _, values) in enumerate(found):
            for name, item in values.items():
                column = self._column.get(name)
                if column is not None:
                    value[column, n], quality[column, n] = _cell(item, self.metrics[column][1], texts)
        frame = np.array([at for at, _, _, _ in found], np.int32)
        arrival = frames.ingest_ns[rows][frame] if len(found) else np.empty(0, np.int64)
        own = np.array([when is not None for _, _, when, _ in found], np.bool_)
        times = np.array([when or 0 for _, _, when, _ in found], np.int64)
        return Decoded(
            frame=frame,
            index=np.array([index for _, index, _, _ in found], np.int32),
            ts_ns=np.where(own, times, arrival).astype(np.int64),
            time_source=np.where(own, 0, 2).astype(np.uint8),
            value=value,
            quality=quality,
            status=status,
            place=place,
            texts=texts,
            detail=detail,
            unknown=unknown,
            unknown_frame=unknown_frame,
        )


def checked(answer: Any) -> list[tuple[int | None, dict[str, Any]]] | str:
    """The readings of a frame as (time in ns, metrics), or why it is refused: what the function says,
    or what is wrong with its answer."""
    if isinstance(answer, str):
        return answer or "refused without a reason"
    if answer is None:
        return []
    if not isinstance(answer, list):
        return f"the answer of a frame is a list of readings, a text or None, not {type(answer).__name__}"
    found: list[tuple[int | None, dict[str, Any]]] = []
    for one in answer:
        metrics = one.get("metrics") if isinstance(one, dict) else None
        if not isinstance(metrics, dict) or not all(isinstance(name, str) for name in metrics):
            return (
                "a reading is a mapping with 'metrics', a mapping by name, and 'time', ms since 1970 or None"
            )
        if extra := [str(key) for key in one if key not in ("metrics", "time")]:
            return f"a reading has 'metrics' and 'time', not '{extra[0]}'"
        when = one.get("time")
        if when is None:
            found.append((None, metrics))
        elif isinstance(when, bool) or not isinstance(when, int | float) or not math.isfinite(when):
            return f"time: milliseconds since 1970 are expected, not {when!r}"
        else:
            ns = when * 1_000_000 if isinstance(when, int) else math.floor(when * 1_000_000)
            found.append((max(EARLIEST_NS, min(LATEST_NS, ns)), metrics))
    return found


def _no_number(values: Mapping[str, Any]) -> str:
    for name, item in values.items():
        if isinstance(item, float) and not math.isfinite(item):
            return f"{name}: {item} is no number; None says that there is none"
    return ""


def _cell(item: Any, kind: str, texts: dict[int, str]) -> tuple[float, int]:
    """(value, quality) as decoders of text give them: null is bad, another type a breach."""
    if item is None:
        return math.nan, BAD
    if isinstance(item, bool) != (kind == "boolean") or isinstance(item, str) != (kind == "string"):
        return math.nan, TYPE_BREACH
    if isinstance(item, str):
        code = text_code(item)
        texts[code] = item
        return float(code), GOOD
    return (float(item), GOOD) if isinstance(item, int | float) else (math.nan, TYPE_BREACH)
