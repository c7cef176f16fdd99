"""Where an archive lies: a local folder, or a bucket (`s3://bucket/prefix`) through pyarrow.

A file appears under its name whole and on disk, or not at all. In a bucket, an upload that was
cut short can leave a file without its end, which reads as no Parquet file; the archiver looks at
the newest file when it starts and writes such a one again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol

from pyarrow import fs

from connectors.durable import sync_folder
from connectors.errors import ConfigError

REMOTE: Final = "s3://"
PARTIAL: Final = ".partial"
COPY: Final = 1 << 20

Fill = Callable[[IO[bytes]], None]


class ArchiveStore(Protocol):
    """Files by their path below the archive's root, with `/`. Everything raises OSError where the
    place is away, full, or refuses us."""

    where: str

    def names(self, below: str = "") -> dict[str, int]:
        """Every file below a folder, and its size; {} where there is no such folder."""

    def write(self, name: str, fill: Fill) -> int:
        """Make a file, or replace it by the same content; returns its size once it is durable."""

    def open(self, name: str) -> Any:
        """A file to be read at random."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def clean(self, below: str) -> None:
        """Delete what unfinished writes left below a folder."""


class LocalStore:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def names(self, below: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        base = self.root / below
        if not base.is_dir():
            if base.exists():
                raise NotADirectoryError(20, "is a file, not a folder", str(base))
            return found
        for folder, _, files in os.walk(base, onerror=_raise):
            for file in files:
                path = Path(folder, file)
                if not file.endswith(PARTIAL):
                    with suppress(FileNotFoundError):
                        found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return found

    def write(self, name: str, fill: Fill) -> int:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}{PARTIAL}")
        try:
            with beside.open("wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        folder = path.parent
        while True:  # folders may be new as well
            sync_folder(folder)
            if folder == self.root or folder == folder.parent:
                break
            folder = folder.parent
        with suppress(OSError):
            sync_folder(self.root.parent)
        return size

    def open(self, name: str) -> Any:
        return (self.root / name).open("rb")

    def delete(self, name: str) -> None:
        path = self.root / name
        path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            path.parent.rmdir()

    def clean(self, below: str) -> None:
        for path in (self.root / below).rglob(f".*{PARTIAL}"):
            path.unlink(missing_ok=True)


class RemoteStore:
    """A folder of any file system that pyarrow knows; a file is made on this machine's disk first."""

    def __init__(self, system: Any, root: str, where: str) -> None:
        self._fs = system
        self._root = root.rstrip("/")
        self.where = where

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def names(self, below: str = "") -> dict[str, int]:
        chosen = fs.FileSelector(self._path(below), recursive=True, allow_not_found=True)
        return {
            one.path[len(self._root) + 1 :]: int(one.size)
            for one in self._fs.get_file_info(chosen)
            if one.type == fs.FileType.File
        }

    def write(self, name: str, fill: Fill) -> int:
        with tempfile.TemporaryFile() as spool:
            fill(spool)
            size = spool.tell()
            spool.seek(0)
            path = self._path(name)
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            try:
                with self._fs.open_output_stream(path) as out:
                    shutil.copyfileobj(spool, out, COPY)
            except BaseException:
                with suppress(OSError):
                    self._fs.delete_file(path)
                raise
            there = self._fs.get_file_info(path)
        if there.size != size:
            raise OSError(5, f"holds {there.size} bytes after {size} were sent", f"{self.where}/{name}")
        return size

    def open(self, name: str) -> Any:
        return self._fs.open_input_file(self._path(name))

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.delete_file(self._path(name))

    def clean(self, below: str) -> None:
        """Unfinished uploads have no name; the bucket's own rule for them applies."""


def open_store(path: str, data: Path) -> ArchiveStore:
    """The place that `archive.path` names; a relative one lies in the data directory.

    An address takes pyarrow's options (`s3://bucket/prefix?region=..&endpoint_override=..`); who we
    are stands in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE) or is the
    machine's role. Raises ConfigError for an address that cannot be one.
    """
    if not path.startswith(REMOTE):
        return LocalStore(data / path)
    try:
        system, root = fs.FileSystem.from_uri(path)
    except (ValueError, OSError) as error:  # pa.ArrowInvalid is a ValueError
        raise ConfigError(f"archive.path {path}: {error}") from error
    return RemoteStore(system, root, path.partition("?")[0].rstrip("/"))


def _raise(error: OSError) -> None:
    raise error
