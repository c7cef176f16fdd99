"""Which plant runs: the one that is applied in the journal, or the folder's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from connectors.errors import ConfigError, JournalError
from connectors.journal.reader import JournalReader
from flows.apply import resolved_plant
from flows.change import plan_change
from flows.plant_file import Plant
from flows.shards import shard_folders


class Chosen(NamedTuple):
    """is_applied: it is in the journal; else it is still to be applied. entry: of the plant that is
    applied now; None: there is none."""

    plant: Plant
    is_applied: bool
    entry: int | None


class PlantToRun:
    """The choice, which may be made again. plant: the folder's; None where it has errors, which
    `problems` tells."""

    def __init__(self, plant: Plant | None, problems: str, data: Path, say: Callable[[str], None]) -> None:
        self._folder_plant, self._folder_problems = plant, problems
        self._data, self._say = data, say

    def choose(self, apply: bool) -> Chosen:
        """Where a plant is applied and stays so, it is the one that runs, whatever the folder says.
        Raises `ConfigError` where neither folder nor journal has one, or where the folder is
        to be applied and cannot be."""
        try:
            with closing(JournalReader(shard_folders(self._data)[0] / "journal")) as reader:
                applied = reader.last_plant()
        except JournalError:  # there is no journal yet
            applied = None
        if applied is None:
            return Chosen(self._of_folder(), False, None)
        if self._folder_plant is not None and self._folder_plant.sha256 == applied.sha256:
            return Chosen(self._folder_plant, True, applied.entry)
        before = resolved_plant(applied.files)
        if apply:
            after = self._of_folder()
            refused = plan_change(before, after).refused
            if refused:
                raise ConfigError("\n".join(refused))
            return Chosen(after, False, applied.entry)
        self._tell_difference(before)
        return Chosen(before, True, applied.entry)

    def _of_folder(self) -> Plant:
        if self._folder_plant is None:
            raise ConfigError(self._folder_problems)
        return self._folder_plant

    def _tell_difference(self, applied: Plant) -> None:
        """The folder is not what runs: say how they differ, and how to take the folder in."""
        if self._folder_plant is None:
            self._say(
                f"the folder has errors, so the applied plant runs without it:\n{self._folder_problems}"
            )
            return
        told = "\n".join(plan_change(applied, self._folder_plant).lines())
        self._say(
            f"the applied plant runs; the folder differs from it:\n{told}\n"
            "take the folder in with: penstock apply PLANT --why TEXT, or penstock run PLANT --apply"
        )
