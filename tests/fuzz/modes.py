"""`python -m tests.fuzz.modes`: the kernels compiled as the plant has them, compiled with bounds checks, and
uncompiled, over the same frames and readings; exit code 1 where they differ.

Frames: each fuzz target's own and mutations of them. Readings: streams through the contract's kernels.
`--print` gives the outcome of this process alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings
from typing import Any

import numpy as np

from operators.contract.spec import Contract, Metric, ProductContract, SequenceContract
from operators.contract.step import ContractLogic
from operators.devices import Devices
from tests.contract.slices import slice_of
from tests.fuzz.__main__ import MODES
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import decoded, targets

FRAMES = 25  # mutations of each target's frames
SECOND = 1_000_000_000
START = 1_772_355_600 * SECOND


def outcome() -> dict[str, str]:
    """A digest for each target and for the contract."""
    found = {}
    for target in targets():
        rng = random.Random(target.name)
        frames = [
            *target.seeds,
            *(mutated(rng.choice(target.seeds), target.seeds, rng) for _ in range(FRAMES)),
        ]
        state = hashlib.sha256()
        for frame in frames:
            got = decoded(target, frame, rng.choice((-1, 1, 2)))
            for array in (
                got.status,
                got.place,
                got.frame,
                got.index,
                got.ts_ns,
                got.time_source,
                got.quality,
            ):
                state.update(np.ascontiguousarray(array).tobytes())
            state.update(np.where(np.isnan(got.value), 0.0, got.value).tobytes())
            told = [sorted(got.detail.items()), sorted(got.texts.items()), sorted(got.unknown.items())]
            state.update(json.dumps(told).encode())
        found[target.name] = state.hexdigest()
    found["contract"] = _contract()
    return found


def _contract() -> str:
    """Readings of three devices with every kind of breach, some of them sent twice."""
    rng = random.Random(5)
    kinds = {"t": "number", "n": "integer", "on": "boolean", "mode": "string"}
    metrics = {
        "t": Metric(name="t", range=(-10.0, 50.0), max_step=20.0, on_breach="clamp", required=True),
        "n": Metric(name="n", type="integer", range=(0.0, None), on_breach="reject"),
        "on": Metric(name="on", type="boolean", on_breach="bad"),
        "mode": Metric(name="mode", type="string", values=["a", "b"]),
    }
    contract = Contract(sequence=SequenceContract(metric="n", wraps=16))
    spec = ProductContract(metrics, contract, 60 * SECOND, frozenset({"gone"}))
    devices, state, arrived = Devices(), hashlib.sha256(), START
    logic = ContractLogic({"p": spec}, devices)
    readings: list[dict[str, Any]] = []
    for frame in range(150):
        arrived += rng.choice((0, 1, 30)) * SECOND
        values = {
            name: value
            for name, value in (
                ("t", rng.choice((1.0, 45.0, 90.0, None, "x"))),
                ("n", rng.choice((frame % 16, -1, 2.5))),
                ("on", rng.choice((True, 1.0))),
                ("mode", rng.choice(("a", "z"))),
            )
            if rng.random() < 0.8
        }
        behind = rng.choice((0, 0, 1, 3, 100, 10**7, -1000)) * SECOND
        fresh = {"device": rng.choice("abc"), "ts": arrived - behind, "flags": [], "values": values}
        again = rng.random() < 0.15 and readings
        readings.append({**(rng.choice(readings) if again else fresh), "frame": frame, "ingest": arrived})
    item = slice_of(readings, kinds, devices)
    logic.process(item)
    (batch,) = item.readings
    for array in (batch.seq, batch.ts_ns, batch.flags, batch.quality, np.nan_to_num(batch.value)):
        state.update(np.ascontiguousarray(array).tobytes())
    state.update(json.dumps([[one.reason.name, one.message, one.position] for one in item.rejects]).encode())
    state.update(json.dumps(sorted(logic.missing(10), key=str)).encode())
    return state.hexdigest()


def in_mode(mode: str) -> dict[str, str]:
    """The outcome in a process of its own, with compiled modules of its own where they differ."""
    with tempfile.TemporaryDirectory() as cache:
        own = {"NUMBA_CACHE_DIR": cache} if mode == "bounds" else {}
        ran = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.modes", "--print"],
            env={**os.environ, **MODES[mode], **own},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return dict(json.loads(ran.stdout))


def main() -> int:
    """Compare the modes, or print the outcome of this one."""
    if "--print" in sys.argv:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # uncompiled, a wrapping product warns
            print(json.dumps(outcome()))
        return 0
    compiled = in_mode("compiled")
    wrong = 0
    for mode in ("bounds", "uncompiled"):
        other = in_mode(mode)
        for name in sorted({*compiled, *other}):
            if compiled.get(name) != other.get(name):
                print(f"{name}: {mode} gives otherwise than compiled")
                wrong = 1
    told = "differ" if wrong else "equal"
    print(f"{len(compiled)} targets, compiled, with bounds checks and uncompiled: {told}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
