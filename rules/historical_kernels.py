"""The kernel that picks the historical readings which go on a device's own track of time."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from operators.batch import Bytes, Int32, Int64
from operators.jit import kernel

_HISTORICAL: Final = 1  # operators.batch
_REBASED: Final = 8


@kernel
def rising(device: Int32, ts_ns: Int64, flags: Bytes, newest: Int64, keep: npt.NDArray[np.bool_]) -> int:
    """Mark historical rows that are newer than every one of their device before them; returns how many.

    device: int32[N] slots; newest: int64[D] state, of the track; keep: bool[N]. A device whose clock
    stepped begins its track anew.
    """
    count = 0
    for row in range(device.shape[0]):
        keep[row] = False
        if flags[row] & _HISTORICAL:
            slot = device[row]
            if ts_ns[row] > newest[slot] or flags[row] & _REBASED:
                newest[slot] = ts_ns[row]
                keep[row] = True
                count += 1
    return count


def warm_up() -> None:
    """Compile the kernel for the types of the hot path."""
    i32, i64, u8 = np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.uint8)
    rising(i32, i64, u8, i64.copy(), np.zeros(1, np.bool_))
