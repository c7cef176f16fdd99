"""`python -m tests.fuzz --seconds N`: frames that nobody wrote, through every decoder.

Guided by coverage: the kernels run uncompiled, a frame that takes a new step from line to line of
operators/decode goes into the corpus. `--mode bounds` runs them compiled with bounds checks instead,
`--mode compiled` as the plant does (both unguided), `--engine atheris` lets libFuzzer choose the frames
(`make fuzz` installs it; `--engine any` takes it where it is, else our own loop). A frame that breaks a
decoder is printed in hex, exit code 1.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from types import FrameType
from typing import Any

MODES = {"uncompiled": {"NUMBA_DISABLE_JIT": "1"}, "bounds": {"NUMBA_BOUNDSCHECK": "1"}, "compiled": {}}
ROOM = os.path.join("operators", "decode")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", choices=[*MODES], default="uncompiled")
    parser.add_argument("--engine", choices=["own", "atheris", "any"], default="own")
    parser.add_argument("--only", default="", help="one target")
    given = parser.parse_args()
    wanted = MODES[given.mode]
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        with tempfile.TemporaryDirectory() as cache:
            environ = {**os.environ, **wanted, "NUMBA_CACHE_DIR": cache}
            return subprocess.run([sys.executable, "-m", "tests.fuzz", *sys.argv[1:]], env=environ).returncode
    import numpy as np

    np.seterr(all="ignore")  # integers wrap and divisions give infinities in the kernels too
    if given.engine == "atheris" or (given.engine == "any" and find_spec("atheris") is not None):
        return by_atheris(given.seconds, given.seed, given.only)
    return by_coverage(given.seconds, given.seed, given.only, guided=given.mode == "uncompiled")


class Coverage:
    """Steps from line to line within the functions of the room that a call took."""

    def __init__(self) -> None:
        self.steps: set[tuple[str, int, int]] = set()
        self.new = 0

    def call(self, frame: FrameType, event: str, argument: Any) -> Any:
        """The trace function of `sys.settrace`."""
        name = frame.f_code.co_filename
        if ROOM not in name:
            return None
        before = frame.f_lineno

        def line(inside: FrameType, kind: str, _: Any) -> Any:
            nonlocal before
            step = (name, before, inside.f_lineno)
            if step not in self.steps:
                self.steps.add(step)
                self.new += 1
            before = inside.f_lineno
            return line

        return line


def by_coverage(seconds: float, seed: int, only: str, *, guided: bool) -> int:
    """Our own loop. Which frames are tried depends on the seed, how many on the machine."""
    from tests.fuzz.mutate import mutated
    from tests.fuzz.targets import targets, try_frame

    rng = random.Random(seed)
    every = [target for target in targets() if only in ("", target.name)]
    corpora = {target.name: list(target.seeds) for target in every}
    coverage = Coverage()
    for target in every:  # compiles, before the clock runs
        try_frame(target, target.seeds[0])
    tried, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for target in every:
            corpus = corpora[target.name]
            fresh = tried < len(every) * len(target.seeds)
            payload = (
                corpus[tried // len(every) % len(corpus)]
                if fresh
                else mutated(rng.choice(corpus), corpus, rng)
            )
            port = rng.choice((-1, -1, 0, 1, 2, 255))
            coverage.new = 0
            try:
                if guided:
                    sys.settrace(coverage.call)
                try:
                    try_frame(target, payload, port)
                finally:
                    sys.settrace(None)
            except Exception:
                traceback.print_exc()
                print(f"{target.name}: port {port}: {payload.hex()}")
                return 1
            if coverage.new and len(payload) < 1000:
                corpus.append(payload)
            tried += 1
    kept = sum(len(corpus) for corpus in corpora.values())
    print(f"{tried} frames, {len(coverage.steps)} steps, {kept} frames in the corpus, nothing found")
    return 0


def by_atheris(seconds: float, seed: int, only: str) -> int:
    """libFuzzer's loop; the first byte chooses the target, the second the port."""
    try:
        import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # an extra
    except ImportError:
        print(
            "atheris is not installed: make fuzz, or uv pip install --require-hashes -r requirements/fuzz.txt"
        )
        return 2
    with atheris.instrument_imports(include=["operators.decode"]):
        from tests.fuzz.targets import targets, try_frame

        every = [target for target in targets() if only in ("", target.name)]

    def one(data: bytes) -> None:
        if len(data) >= 2:
            try_frame(every[data[0] % len(every)], data[2:], data[1] - 1)

    with tempfile.TemporaryDirectory() as corpus:
        for number, target in enumerate(every):
            for at, frame in enumerate(target.seeds):
                with open(os.path.join(corpus, f"{number}-{at}"), "wb") as file:
                    file.write(bytes([number, 0]) + frame)
        atheris.Setup(
            ["fuzz", f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-max_len=2000", corpus], one
        )
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
