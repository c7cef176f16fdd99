"""Waiting for a state: looked at often, and given up only where it hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LIMIT_S = 120.0  # what takes seconds on a calm machine takes less on one that is ten times as slow

Found = TypeVar("Found")


def until(
    holds: Callable[[], Found],
    what: str = "it",
    *,
    told: Callable[[], object] | None = None,
    seconds: float = LIMIT_S,
) -> Found:
    """What `holds` returns, as soon as that is true. told: what a failure says beside `what`."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            said = f": {told()}" if told is not None else ""
            raise AssertionError(f"waited {seconds:.0f} s for {what}{said}")
        time.sleep(0.02)
    return found
