"""The machine beside a figure: what it is, and a calibration score to compare machines by."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("bytewax", "numba", "numpy", "lmdb", "msgspec", "pyarrow")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, versions, calibration."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "calibration_mops": round(calibrate(), 1),
    }


def calibrate() -> float:
    """Million fused multiply-adds a second of one core over an L1-sized float64 array (best of 5)."""
    x = np.linspace(0.0, 1.0, 2048)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2000):
            x = x * 0.999 + 0.001
        best = max(best, 2048 * 2000 / (time.perf_counter() - began) / 1e6)
    return best
