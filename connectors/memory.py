"""How a process that moves large batches for a long time keeps its memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

_GARBAGE: Final = (10_000, 20, 20)  # objects more than there were; collections of the younger ones
_MUCH_FREE: Final = 32 << 20  # bytes that glibc keeps without a use


class _Heap(ctypes.Structure):
    """What glibc's `mallinfo2` says."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        )
    )  # fmt: skip


def keep_memory() -> None:
    """Let glibc use the memory of large messages and pages again instead of giving it back to the
    system and faulting it in anew each time (a third of a commit's time). Elsewhere: nothing."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, its upper limit
        library.mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD


def give_memory_back() -> None:
    """Now and then, after what took much memory for a moment (a backlog, all windows of a minute, a
    snapshot): give back what lies free, if it is much. What a slice takes it finds again at once."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallinfo2.restype = _Heap
        if library.mallinfo2().fordblks > _MUCH_FREE:
            library.malloc_trim(0)


def settle_memory() -> None:
    """Before the first batch: keep memory, no longer look for garbage in what is loaded by now (a process
    with compiled kernels has half a million objects, which stay), and seldom in what comes, which has hardly
    any cycles: to look through alarms and what is known of devices cost a sixth of what an event does."""
    keep_memory()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
