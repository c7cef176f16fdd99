"""What the supervisor says of components that run and are not well."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from flows.health import readiness

UNWELL_SECONDS = 4.0  # a component that is away for less is not worth a line


class Unwell:
    """The components of a data directory that are not well, and which of them `say` was told of."""

    def __init__(self, data: Path, say: Callable[[str], None]) -> None:
        self._data, self._say = data, say
        self._looked_at = 0.0
        self._unwell: dict[str, float] = {}  # since when
        self._told: set[str] = set()

    def tell(self) -> None:
        """Say once of a component that runs that it is not well, and once that it is again."""
        now = time.monotonic()
        if now - self._looked_at < UNWELL_SECONDS / 4:
            return
        self._looked_at = now
        for name, one in readiness(self._data)["components"].items():
            well = one["ready"] and one["state"] != "target away"
            if well or one["state"] in ("starting", "waiting", "ended", "stopped"):
                self._unwell.pop(name, None)
                if well and name in self._told:
                    self._told.remove(name)
                    self._say(f"{name} is well again: {one['state']}")
            elif now - self._unwell.setdefault(name, now) >= UNWELL_SECONDS and name not in self._told:
                self._told.add(name)
                self._say(f"{name}: {one['state']}; {one['detail'] or f'see logs/{name}.jsonl'}")
