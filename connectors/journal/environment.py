"""LMDB environments of the journal and the output log: one per path and process, shared by whoever
opens it here.

LMDB refuses a second environment on one path in one process; a test or a tool that writes and
reads in the same process gets the same one.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import lmdb

from connectors.errors import JournalError

DATABASES: Final = (b"entries", b"meta", b"plants", b"bundles", b"sessions", b"keys", b"key_order")
MAX_READERS: Final = 512
_HARDLY_ANY: Final = 1 << 20  # bytes of room on a disk

_lock = threading.Lock()
_opened: dict[Path, tuple[Any, int, bool]] = {}


class Environment:
    """A counted reference to an LMDB environment and its sub-databases."""

    def __init__(
        self, path: Path, *, map_bytes: int | None = None, databases: Sequence[bytes] = DATABASES
    ) -> None:
        """`map_bytes` given: open for writing, made if it is not there. Raises JournalError."""
        self.path = path.resolve()
        self.closed = False
        writing = map_bytes is not None
        with _lock:
            env, users, may_write = _opened.get(self.path, (None, 0, False))
            if env is not None and writing and not may_write:
                raise JournalError(f"{path} is open for reading in this process; close it first")
            if env is None:
                env, may_write = _open(self.path, map_bytes, len(databases)), writing
            _opened[self.path] = (env, users + 1, may_write)
        self.env = env
        try:
            self.databases = {name: env.open_db(name, create=writing) for name in databases}
        except lmdb.Error as error:
            self.close()
            raise JournalError(f"{path} is no journal: {error}") from error

    def close(self) -> None:
        """Let go; the environment is closed with its last user."""
        if self.closed:
            return
        self.closed = True
        with _lock:
            env, users, writing = _opened[self.path]
            if users == 1:
                del _opened[self.path]
                env.close()
            else:
                _opened[self.path] = (env, users - 1, writing)


def wants_room(error: Any, path: Path) -> bool:
    """Whether LMDB could not write for want of room, in its map or on the disk of `path`. A disk that takes
    only the first part of a write is told as an input/output error."""
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)):
        return True
    return "Input/output" in str(error) and shutil.disk_usage(path).free < _HARDLY_ANY


def _open(path: Path, map_bytes: int | None, max_dbs: int) -> Any:
    try:
        if map_bytes is None:
            # 0: as large as the writer's; the library's default of 10 MB would end with the next commit
            return lmdb.open(
                str(path),
                readonly=True,
                create=False,
                map_size=0,
                max_dbs=max_dbs,
                max_readers=MAX_READERS,
            )
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return lmdb.open(str(path), map_size=map_bytes, max_dbs=max_dbs, max_readers=MAX_READERS, mode=0o600)
    except (lmdb.Error, OSError) as error:
        raise JournalError(f"cannot open the journal {path}: {error}") from error
