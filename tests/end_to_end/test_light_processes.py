"""What a process that runs no kernel loads: a plant has many of them, and the compiler costs each 60 MB and
the better part of a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "module", ["flows.receiver", "flows.drainer", "flows.archiver", "flows.cli", "connectors.journal.process"]
)
def test_it_leaves_the_compiler_alone(module: str) -> None:
    code = f"import sys, {module}; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
