"""The state of the stages as the flow's newest durable snapshot has it, looked at beside the flow.

A snapshot names the pages of state that it needs, and the flow lets go of those that a newer one
replaced. So the pages are copied between two looks at which snapshot is the newest, and it must be the
same one both times.
"""

from __future__ import annotations

import pickle
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmdb

from operators.pages import PageStore

TRIES: Final = 5
_FLOW: Final = "plant."  # what stands before a stage's name in Bytewax's steps
_NEWEST: Final = """
SELECT step_id, ser_change, MAX(snap_epoch) FROM snaps WHERE snap_epoch < COALESCE((
    SELECT COALESCE((SELECT MIN(worker_frontier) FROM fronts WHERE ex_num = e.ex_num), e.resume_epoch)
    FROM exs e ORDER BY e.ex_num DESC LIMIT 1), 0)
GROUP BY step_id, state_key
"""
"""Of every step its newest snapshot of an epoch that is durable (see flows/recovery.py)."""


@dataclass(slots=True)
class Snapshot:
    """entry: the journal entry that follows it. stages: name -> what its logic's snapshot gave."""

    entry: int
    stages: dict[str, bytes]
    pages: PageStore


@contextmanager
def newest_snapshot(data: Path) -> Iterator[Snapshot | None]:
    """The newest durable snapshot of a data directory's flow; None where there is none that can be
    read. Its pages live as long as the context."""
    with tempfile.TemporaryDirectory(prefix="penstock-explain-") as folder:
        found = _copied(data / "recovery", Path(folder))
        try:
            yield found
        finally:
            if found is not None:
                found.pages.close()


def _copied(recovery: Path, to: Path) -> Snapshot | None:
    if not (recovery / "pages" / "data.mdb").exists():
        return None
    for number in range(TRIES):
        before = _steps(recovery)
        copy = to / str(number)
        copy.mkdir()
        with closing(lmdb.open(str(recovery / "pages"), readonly=True, lock=True, map_size=0)) as pages:
            pages.copy(str(copy), compact=True)
        if before is not None and before == _steps(recovery):
            entry = before.pop("journal", None)
            if not isinstance(entry, int):
                return None
            stages = {name: state for name, state in before.items() if isinstance(state, bytes)}
            return Snapshot(entry, stages, PageStore(copy))
    return None


def _steps(recovery: Path) -> dict[str, object] | None:
    """Stage -> its state, and `journal` -> the entry that follows; None without a recovery store.
    Bytewax pickles them: numbers, texts and bytes, which the flow itself loads the same way."""
    part = next(iter(sorted(recovery.glob("part-*.sqlite3"))), None)
    if part is None:
        return None
    with closing(sqlite3.connect(f"file:{part}?mode=ro", uri=True)) as db:
        rows = db.execute(_NEWEST).fetchall()
    return {step.removeprefix(_FLOW): pickle.loads(state) for step, state, _ in rows if state is not None}  # noqa: S301
