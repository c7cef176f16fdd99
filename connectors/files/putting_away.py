"""What becomes of a file that has been read: moved, renamed, marked or deleted."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from connectors.durable import sync_folder
from connectors.files.config import FilesConfig
from connectors.files.progress import Identity, as_json

_MARK: Final = re.compile(r".\.(?:done|failed)(?:\.[0-9]+)?\Z", re.DOTALL)


class PuttingAway:
    """`after` of a files source: `move` into the folders `done` and `failed`, `rename` to NAME.done and
    NAME.failed, `mark` by a file of that name beside it, `delete` (what failed is moved)."""

    def __init__(self, watch: Path, config: FilesConfig) -> None:
        self._watch = watch
        self._after = config.after
        self._folders = {"done": config.done.strip("/"), "failed": config.failed.strip("/")}
        self._marks: dict[str, Identity] = {}  # as they were read

    def put(self, identity: Identity, why: str, name: str) -> str:
        """Put a file away, as failed where `why` is not empty; says where it is. It is so after a loss of
        power as well. name: what it was called when it was found. Raises OSError."""
        where = self._put(identity, why, name)
        folders = {(self._watch / identity.name).parent}
        if where is not None:
            folders.add((self._watch / where).parent)
        for folder in folders:
            sync_folder(folder)
        return where or "deleted"

    def _put(self, identity: Identity, why: str, name: str) -> str | None:
        kind, path = "failed" if why else "done", self._watch / identity.name
        if self._after == "mark":
            mark = path.with_name(f"{path.name}.{kind}")
            beside = path.with_name(f".{path.name}.{os.getpid()}")
            beside.write_bytes(as_json(_Mark(identity, why)))
            os.replace(beside, mark)
            self._marks[identity.name] = identity
            return mark.relative_to(self._watch).as_posix()
        if self._after == "delete" and not why:
            path.unlink()
            return None
        if self._after == "rename":
            target = _free(path.with_name(f"{path.name}.{kind}"))
        else:
            target = self._watch / self._folders[kind] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target = _free(target)
        os.rename(path, target)
        return target.relative_to(self._watch).as_posix()

    def is_mark(self, name: str) -> bool:
        """Whether a name is one that files get when they are put away."""
        return self._after in ("rename", "mark") and _MARK.search(name) is not None

    def is_folder(self, name: str) -> bool:
        """Whether files are moved into this folder below `watch`."""
        return self._after in ("move", "delete") and name in self._folders.values()

    def is_done(self, identity: Identity) -> bool:
        """Whether a file's mark says that it, and not one of the same name before it, is done."""
        if self._after != "mark":
            return False
        if self._marks.get(identity.name) != identity:
            for kind in ("done", "failed"):
                path = self._watch / f"{identity.name}.{kind}"
                try:
                    told = msgspec.convert(json.loads(path.read_bytes()), _Mark)
                except (OSError, ValueError):
                    continue  # there is none, or somebody else's, which says nothing
                if told.file == identity:
                    self._marks[identity.name] = identity
                    return True
            return False
        return (self._watch / f"{identity.name}.done").exists() or (
            self._watch / f"{identity.name}.failed"
        ).exists()


class _Mark(msgspec.Struct):
    file: Identity
    why: str = ""


def _free(path: Path) -> Path:
    """The path, or the first of `path.1`, `path.2` ... where nothing stands."""
    if not path.exists():
        return path
    return next(
        candidate
        for number in itertools.count(1)
        if not (candidate := path.with_name(f"{path.name}.{number}")).exists()
    )
