"""The Bytewax recovery store of one shard: made, and scrubbed before every start.

Bytewax 0.21.1 keeps snapshots of an epoch that was never committed in its SQLite file and may
load them on a later resume: state would then be applied twice. So before every start the rows at
or beyond the epoch that the run resumes from are deleted. The resume epoch is computed as Bytewax
does: the frontier that the last execution reached, else the epoch that it had resumed from
(tables `exs` and `fronts` of the recovery partition).
"""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import IO

from bytewax.recovery import RecoveryConfig, init_db_dir

from connectors.errors import PenstockError


def hold_recovery(folder: Path) -> IO[bytes]:
    """The lock of a recovery store, made if it is not there, held until the file is closed or this
    process ends: two flows over one store would each spoil the other's state. Raises
    `PenstockError` where another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise PenstockError(f"the flow over {folder.parent} runs already; stop its plant first") from error
    return lock


def prepare_recovery(folder: Path) -> tuple[RecoveryConfig, int]:
    """The recovery store in `folder`, made if it is not there, and how many rows were scrubbed.

    Call it before every start of the dataflow, in no other process at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = sorted(folder.glob("part-*.sqlite3"))
    if not parts:
        init_db_dir(folder, 1)
        return RecoveryConfig(str(folder)), 0
    return RecoveryConfig(str(folder)), sum(scrub(part) for part in parts)


def scrub(part: Path) -> int:
    """Delete snapshots of epochs that were never committed; returns how many rows went."""
    with closing(sqlite3.connect(part)) as db:
        row = db.execute(
            "SELECT COALESCE((SELECT MIN(worker_frontier) FROM fronts WHERE ex_num = e.ex_num),"
            " e.resume_epoch) FROM exs e ORDER BY e.ex_num DESC LIMIT 1"
        ).fetchone()
        resume_epoch = 0 if row is None else int(row[0])
        with db:
            return db.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (resume_epoch,)).rowcount
