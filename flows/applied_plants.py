"""The plants that were applied to the shards' journals: the newest, and that every shard has it.

The first shard's journal decides. What stands in it and not in another's, because it was applied to
the first alone or somebody was killed between two, is brought there under the same apply id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import lmdb

from connectors.errors import JournalError
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.reader import Applied, JournalReader

SPREAD_S: Final = 2.0  # that a journal has to take a plant in, before others are looked at again


class AppliedPlants:
    """Reads the journals of all shards; folders: theirs, by number."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._readers: dict[int, JournalReader] = {}

    def newest(self) -> Applied | None:
        """The plant that was applied last; None where there is none, or no journal yet."""
        try:
            return self._reader(0).newest_applied()
        except (JournalError, lmdb.Error):
            return None

    def bundle(self, sha256: str) -> Mapping[str, bytes]:
        """The files of an applied plant. Raises JournalError."""
        return self._reader(0).bundle(sha256)

    def spread(self, applied: Applied) -> None:
        """Apply it to the shards that do not have it; one whose journal is away or full is left for
        the next call."""
        for shard in range(1, len(self._folders)):
            try:
                there = self._reader(shard).newest_applied()
                if there is not None and there.apply_id == applied.apply_id:
                    continue
                about = {"apply_id": applied.apply_id, "by": applied.by, "why": applied.why}
                control = {"sha256": applied.sha256, "files": self.bundle(applied.sha256), **about}
                with BlockingJournalClient(self._folders[shard], "supervisor", timeout=SPREAD_S) as journal:
                    journal.control("plant", control)
            except (JournalError, lmdb.Error):
                continue

    def close(self) -> None:
        """Let go of the journals."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _reader(self, shard: int) -> JournalReader:
        if shard not in self._readers:
            self._readers[shard] = JournalReader(self._folders[shard] / "journal")
        return self._readers[shard]
