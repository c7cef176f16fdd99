"""The versions of a plant that were applied, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from connectors.errors import JournalError, PenstockError
from connectors.journal.lines import iso_time
from connectors.journal.reader import JournalReader
from flows.change_documents import ItemChange, changed_items
from flows.shards import shard_folders

SHOWN: Final = 4  # items that a line of the history names


def history_rows(data: Path) -> list[dict[str, Any]]:
    """Applied versions, newest first: apply_id, at, at_ms, by, why, sha256, entry, changes (a line)."""
    rows: list[dict[str, Any]] = []
    with closing(journal_reader(data)) as reader:
        before: Mapping[str, bytes] | None = None
        for one in reader.history():
            files = reader.bundle(one.sha256)
            rows.append(
                {
                    "apply_id": one.apply_id,
                    "at": iso_time(one.ms * 1_000_000) if one.ms else "",
                    "at_ms": one.ms,
                    "by": one.by,
                    "why": one.why,
                    "sha256": one.sha256,
                    "entry": one.entry,
                    "changes": "first" if before is None else in_a_line(changed_items(before, files)),
                }
            )
            before = files
    return rows[::-1]


def in_a_line(items: Sequence[ItemChange]) -> str:
    """`rule hot changed, device p3 added`, and how many more."""
    told = [f"{item.kind} {item.name} {item.change}" for item in items[:SHOWN]]
    if len(items) > SHOWN:
        told.append(f"{len(items) - SHOWN} more")
    return ", ".join(told) or "comments and layout alone"


def journal_reader(data: Path) -> JournalReader:
    """A reader of the journal that has all versions. Raises `PenstockError` where there is none."""
    try:
        return JournalReader(shard_folders(data)[0] / "journal")  # each shard has them all
    except JournalError as error:
        raise PenstockError(f"{data} holds no plant's data; run it first: penstock run PLANT") from error
