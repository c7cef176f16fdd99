"""The engine over seeded plants and recordings, value by value against a plain computation of FORMATS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.__main__ import example
from tests.oracle.comparison import differences


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_seeded_plants_come_out_as_computed_plainly(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        plant, lines, cut = example(seed)
        found = differences(tmp_path / str(seed), plant, lines, cut)
        assert not found, f"python -m tests.oracle --seed {seed} --examples 1\n" + "\n".join(found[:20])
