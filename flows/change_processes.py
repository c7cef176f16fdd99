"""What a changed plant asks of the processes: which targets are named, and who ends and starts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from connectors.durable import replace_durably
from flows.components import Component
from flows.shards import FOLDER, shard_folders

STOP_SECONDS: Final = 10.0  # that a process has to end
NAMED: Final = b"{}\n"
LEFT_BEHIND: Final = ("source-*.json", "partition.json", "archive.json")  # once with secrets in them


class Changing:
    """The way from the processes of one plant to those of another.

    ending: processes that have to end first; a receiver acknowledges nothing that is not journaled,
    so ending it loses nothing. starting: those that then start, with their new configuration.
    entry: of the journal, at which the plant was applied. what: has changed, where it is no plant.
    """

    def __init__(
        self, before: Mapping[str, Component], after: Mapping[str, Component], entry: int, what: str = ""
    ) -> None:
        self.what = what
        self.after = dict(after)
        self.entry = entry
        self.stops = [name for name in before if name not in after]
        self.starts = [name for name in after if name not in before]
        self.restarts = [n for n in after if n in before and not after[n].starts_like(before[n])]
        self.ending = {*self.stops, *self.restarts}
        self.starting = {*self.starts, *self.restarts}
        self._until = time.monotonic() + STOP_SECONDS

    def is_late(self) -> bool:
        """Whether what has not ended yet is to be killed."""
        return time.monotonic() > self._until

    def words(self) -> str:
        """`restarts receiver-line1; stops drainer-kafka`, or nothing."""
        told = (("restarts", self.restarts), ("starts", self.starts), ("stops", self.stops))
        return "; ".join(f"{word} {', '.join(names)}" for word, names in told if names)


def folder_of(data: Path, component: Component) -> Path:
    """The data directory of a process: the plant's, or its shard's folder in it."""
    return data if component.shard is None else data / FOLDER / str(component.shard)


def name_targets(data: Path, components: Iterable[Component]) -> None:
    """Name the targets whose records the output log keeps, durably, by `run/target-NAME.json`; those
    that are no more are named until `forget_targets`."""
    for path in _target_files(data, components):
        if not path.exists() or path.read_bytes() != NAMED:
            replace_durably(path, NAMED)


def forget_targets(data: Path, components: Iterable[Component]) -> None:
    """Take away what names no target of the plant's, and configurations that earlier versions left there."""
    named = set(_target_files(data, components))
    for folder in {data, *shard_folders(data)}:
        for pattern in ("target-*.json", *LEFT_BEHIND):
            for path in (folder / "run").glob(pattern):
                if path not in named:
                    path.unlink(missing_ok=True)


def _target_files(data: Path, components: Iterable[Component]) -> list[Path]:
    return [
        folder_of(data, one) / "run" / f"target-{one.target}.json"
        for one in components
        if one.target is not None
    ]
