"""The only importer of Numba's decorators: one cache policy, one warm-up.

Kernels release the GIL, are cached on disk beside their file, and never use fast-math (it
changes NaN handling and bit-exactness). Helpers of a kernel live in the kernel's own file where
that can be; Numba's on-disk cache does not notice an edited helper in another file, so a kernel
that calls one has those files' content in its cache key (`_with_helpers`).

`python -m operators.jit` compiles every kernel of the warm-up list, with progress.
"""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import numba
from numba.core.dispatcher import Dispatcher

F = TypeVar("F", bound=Callable[..., Any])

# Modules with a `warm_up()` that calls each of their kernels once with the types of the hot path.
WARMED: tuple[str, ...] = (
    "operators.text",
    "operators.slots",
    "connectors.journal.merging",
    "connectors.mqtt.publishes",
    "connectors.opcua.kernels",
    "operators.decode.kernels",
    "operators.decode.binary_kernels",
    "operators.decode.straight_kernels",
    "operators.decode.typed_kernels",
    "operators.contract.kernels",
    "operators.contract.sequence",
    "operators.windows.kernels",
    "operators.windows.groups",
    "operators.state.kernels",
    "operators.expression.machine",
    "rules.kernels",
    "rules.absence_kernels",
    "rules.sequence_kernels",
    "rules.group_kernels",
    "rules.device_clock_kernels",
    "rules.historical_kernels",
    "rules.event_kernels",
)


# The same for installation, the longest first, so that several cores share them well.
COMPILED: tuple[str, ...] = (
    "operators.decode.binary_kernels",
    "operators.decode.kernels",
    *(name for name in WARMED if name not in ("operators.decode.kernels", "operators.decode.binary_kernels")),
)

TELL_S = 10.0  # the longest silence during installation


def kernel(function: F) -> F:
    """Compile `function` in nopython mode, GIL released, cached on disk."""
    return cast(F, _with_helpers(numba.njit(nogil=True, cache=True, error_model="numpy")(function)))


def inline(function: F) -> F:
    """A small helper of the kernels in the same file; compiled and cached with them."""
    compiled = numba.njit(nogil=True, cache=True, error_model="numpy", inline="never")(function)
    return cast(F, _with_helpers(compiled))


def fused(function: F) -> F:
    """A helper of a few instructions that becomes part of each kernel in the same file that calls it,
    where a call costs more than the helper does; it costs compile time at every call's place."""
    return cast(F, numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def _with_helpers(compiled: Any) -> Any:
    """Make the cache of a kernel notice edits in the other files whose helpers it calls."""
    files: set[str] = set()
    seen: set[int] = set()
    waiting = [compiled]
    while waiting:
        function = getattr(waiting.pop(), "py_func", None)  # none where Numba is switched off
        if function is None or id(function) in seen:
            continue
        seen.add(id(function))
        files.add(function.__code__.co_filename)
        found = [function.__globals__.get(name) for name in function.__code__.co_names]
        for module in [one for one in found if isinstance(one, ModuleType)]:
            found += [getattr(module, name, None) for name in function.__code__.co_names]
        waiting += [one for one in found if isinstance(one, Dispatcher)]
    cache = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if cache is not None and len(files) > 1:
        files.discard(compiled.py_func.__code__.co_filename)
        content = b"".join(Path(file).read_bytes() for file in sorted(files))
        cache._source_stamp = (cache._source_stamp, hashlib.sha256(content).hexdigest())
    return compiled


def warm_up(report: Callable[[str, float], None] | None = None) -> float:
    """Compile (or load from disk) every kernel; returns the seconds that it took."""
    start = time.perf_counter()
    for name in WARMED:
        began = time.perf_counter()
        importlib.import_module(name).warm_up()
        if report is not None:
            report(name, time.perf_counter() - began)
    return time.perf_counter() - start


def main() -> int:
    """Compile every kernel once, on all cores, telling which; the result is kept on disk."""
    began = time.perf_counter()
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_warm, name) for name in COMPILED}
        while waiting:
            done, waiting = wait(waiting, TELL_S, FIRST_COMPLETED)
            for name, seconds in (one.result() for one in done):
                print(f"  {name:36s} {seconds:6.1f} s", flush=True)
            if not done:
                ready = len(COMPILED) - len(waiting)
                told = f"{ready} of {len(COMPILED)} ready, about a minute on two cores"
                print(f"  ... {time.perf_counter() - began:.0f} s: {told}", flush=True)
    warm_up()  # what calls a kernel of another module is compiled now, if it was not yet
    print(f"  kernels ready after {time.perf_counter() - began:.1f} s")
    return 0


def _warm(name: str) -> tuple[str, float]:
    began = time.perf_counter()
    importlib.import_module(name).warm_up()
    return name, time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
