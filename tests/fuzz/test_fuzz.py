"""Twenty seconds of `python -m tests.fuzz`, its kernels uncompiled; longer ones are run by command."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from tests.fuzz.modes import in_mode, outcome
from tests.fuzz.mutate import LONGEST, mutated
from tests.fuzz.targets import targets, try_frame

ROOT = Path(__file__).parents[2]


def test_twenty_seconds_guided_by_coverage() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seconds", "20", "--seed", "6"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "nothing found" in ran.stdout


def test_uncompiled_kernels_give_the_same() -> None:
    """Those with bounds checks take a minute to compile; continuous integration compares them too."""
    assert in_mode("uncompiled") == outcome()


def test_compiled_decoders_keep_their_contract() -> None:
    """The same 40 frames for each target at every run."""
    rng = random.Random(1)
    for target in targets():
        for _ in range(40):
            payload = mutated(rng.choice(target.seeds), target.seeds, rng)
            assert len(payload) <= LONGEST
            try_frame(target, payload, rng.choice((-1, 1, 2)))
