"""Files receiver: a watched folder whose files are read once each, then moved to `done/` in it."""

from __future__ import annotations

import asyncio
import fnmatch
import itertools
import logging
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from connectors.errors import ConfigError, JournalError
from connectors.files.config import FilesConfig
from connectors.files.rows import Row, file_rows
from connectors.source import Appender, Frame, SourceStatus, Surroundings

BATCH_ROWS: Final = 4096
BATCH_BYTES: Final = 2_000_000
FINISH_S: Final = 3.0  # of the 5 s in which a receiver ends

log = logging.getLogger(__name__)


class Identity(msgspec.Struct, frozen=True):
    """What makes a file the same one: not its name alone, which comes again every day."""

    name: str
    inode: int
    size: int
    mtime_ns: int


class Progress(msgspec.Struct):
    """What has been read, kept beside the journal.

    claim: names this reading of `file` in the keys of its appends, so that an append that was
    made but not noted here before a crash is not made again. offset: bytes of it that are
    durable. stuck: files that are done and could not be moved away.
    """

    file: Identity | None = None
    claim: str = ""
    offset: int = 0
    stuck: list[Identity] = msgspec.field(default_factory=list)


class FilesReceiver:
    """A folder as a source.

    Each file that matches is read once it has not changed for `settle`, in the order of (time of
    change, name), and then moved to `done/`. Every row of it is in the journal exactly once,
    whenever the process is killed.

    folder: what a relative `watch` is relative to (the plant's folder). progress: the file that
    keeps `Progress`; it belongs to the data directory of the journal that is appended to.
    """

    def __init__(self, name: str, config: FilesConfig, *, folder: Path, progress: Path) -> None:
        self.name = name
        self.config = config
        self.status = SourceStatus()
        self._watch = folder / config.watch
        self._file = progress
        self._progress = Progress()
        self._seen: dict[str, tuple[Identity, float]] = {}  # and since when it has been so
        self._told: set[str] = set()
        self._appender: Appender
        if len(config.separator) != 1:
            raise ConfigError(f"source {name}: separator must be one character")

    @classmethod
    def build(cls, name: str, config: FilesConfig, surroundings: Surroundings) -> FilesReceiver:
        """See `connectors.source.Receiver`."""
        progress = surroundings.data / "files" / f"{name}.json"
        return cls(name, config, folder=surroundings.folder, progress=progress)

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """See `connectors.source.Receiver`. Raises `ConfigError` when `watch` is no folder and
        cannot be made one, or the progress cannot be kept, and `JournalError` when the journal
        is gone for good."""
        self._appender = appender
        try:
            self._watch.mkdir(parents=True, exist_ok=True)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._progress = _load(self._file)
        except OSError as error:
            raise ConfigError(f"source {self.name}: {error.filename}: {error.strerror}") from error
        reading = asyncio.create_task(self._read_for_ever(), name=f"{self.name}-read")
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            reading.cancel()  # an append under way counts or not; its key knows
            await asyncio.wait([reading], timeout=FINISH_S)
            if self.status.state in ("connected", "silent"):
                farewell = asyncio.ensure_future(appender.control("disconnected", {"source": self.name}))
                await asyncio.wait([farewell], timeout=1.0)
                farewell.cancel()
            self.status.state = "stopped"
        if reading.done() and not reading.cancelled():
            reading.result()

    async def _read_for_ever(self) -> None:
        connected = False
        while True:
            found = self._look()
            if found is not None:
                self.status.state, self.status.detail = "connected", str(self._watch)
            if (found is not None) != connected:
                connected = not connected
                kind = "connected" if connected else "disconnected"
                await self._appender.control(kind, {"source": self.name})
            for identity in found or ():
                await self._read(identity)
            await asyncio.sleep(self.config.poll / 1e9)

    def _look(self) -> list[Identity] | None:
        """The files that have settled, or None when the folder cannot be read."""
        now = time.monotonic()
        present: dict[str, tuple[Identity, float]] = {}
        try:
            with os.scandir(self._watch) as entries:
                for entry in entries:
                    if not fnmatch.fnmatchcase(entry.name, self.config.pattern) or entry.name.startswith("."):
                        continue
                    try:
                        if not entry.is_file():
                            continue
                        identity = _identity(Path(entry.path))
                    except FileNotFoundError:
                        continue  # moved away between the listing and the look
                    before = self._seen.get(entry.name)
                    same = before is not None and before[0] == identity
                    present[entry.name] = before if before is not None and same else (identity, now)
        except OSError as error:
            if self.status.state != "disconnected":
                log.error("%s: %s", self._watch, error.strerror)
            self.status.state, self.status.detail = "disconnected", f"{self._watch}: {error.strerror}"
            return None
        self._seen = present
        stuck = [identity for identity in self._progress.stuck if identity.name in present]
        if stuck != self._progress.stuck:
            self._progress.stuck = stuck
            self._save()
        settle = self.config.settle / 1e9
        ready = [
            identity
            for identity, since in present.values()
            if now - since >= settle and identity not in self._progress.stuck
        ]
        # one that was begun before a restart goes on first: its rows stay together
        begun = self._progress.file
        return sorted(ready, key=lambda file: (not _same_file(file, begun), file.mtime_ns, file.name))

    async def _read(self, identity: Identity) -> None:
        """All rows of one file that are not in the journal yet, then away with it."""
        progress, path = self._progress, self._watch / identity.name
        if not _same_file(identity, progress.file) or identity.size < progress.offset:
            progress.claim, progress.offset = uuid.uuid4().hex, 0
        progress.file = identity
        self._save()
        log.info("reading %s (%d bytes) from byte %d", identity.name, identity.size, progress.offset)
        rows = file_rows(path, self.config, progress.offset)
        try:
            while batch := await asyncio.to_thread(_batch, rows, identity.size):
                frames: list[Frame] = [row.frame for row in batch]
                await self._append(frames, batch[-1].end)
            if _identity(path) != identity:
                return  # it has grown or changed meanwhile: it settles again and is read on from here
        except FileNotFoundError:
            log.warning("%s is gone before its end (%d bytes read)", identity.name, progress.offset)
        except OSError as error:
            self._tell_once(f"{identity.name}: {error.strerror}")
            return
        else:
            self._move_away(path, identity)
        progress.file, progress.claim, progress.offset = None, "", 0
        self._save()

    async def _append(self, frames: list[Frame], end: int) -> None:
        progress, status = self._progress, self.status
        await self._appender.append(frames, f"files:{self.name}:{progress.claim}:{progress.offset}")
        progress.offset = end
        self._save()
        assert progress.file is not None
        status.frames += len(frames)
        status.bytes += sum(len(frame.payload) for frame in frames)
        status.last_frame_ms = int(time.time() * 1000)
        status.extra = {"file_bytes": float(progress.file.size), "file_offset": float(end)}
        share = 100 * end / max(progress.file.size, 1)
        status.detail = f"{self._watch}: {progress.file.name}, {share:.0f} % read"

    def _move_away(self, path: Path, identity: Identity) -> None:
        done = self._watch / "done"
        try:
            done.mkdir(exist_ok=True)
            target = next(
                candidate
                for number in itertools.count()
                if not (candidate := done / (f"{path.name}.{number}" if number else path.name)).exists()
            )
            os.rename(path, target)
        except OSError as error:
            self._progress.stuck.append(identity)
            self._tell_once(f"{path.name} is read, but cannot be moved to done/: {error.strerror}")
            return
        self._seen.pop(identity.name, None)
        self.status.detail = str(self._watch)
        log.info("%s is read and moved to done/%s", path.name, target.name)

    def _tell_once(self, text: str) -> None:
        self.status.detail = text
        if text not in self._told:
            self._told.add(text)
            log.error("%s", text)

    def _save(self) -> None:
        try:
            beside = self._file.with_suffix(".new")
            with beside.open("wb") as file:
                file.write(msgspec.json.encode(self._progress))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self._file)
        except OSError as error:
            raise JournalError(f"{self._file}: {error.strerror}") from error


def _load(path: Path) -> Progress:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Progress)
    except FileNotFoundError:
        return Progress()
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}; remove it, and files that were begun are read again") from error


def _identity(path: Path) -> Identity:
    found = path.stat()
    return Identity(path.name, found.st_ino, found.st_size, found.st_mtime_ns)


def _same_file(file: Identity, begun: Identity | None) -> bool:
    """Whether `file` is the one begun, grown or not."""
    return begun is not None and (file.name, file.inode) == (begun.name, begun.inode)


def _batch(rows: Iterator[Row], size: int) -> list[Row]:
    """The next rows for one append. The same offset gives the same rows again after a restart.

    size: of the file when it had settled; rows that end beyond it belong to the next time.
    """
    batch: list[Row] = []
    held = 0
    for row in rows:
        if row.end > size:
            break
        batch.append(row)
        held += len(row.frame.payload)
        if len(batch) == BATCH_ROWS or held >= BATCH_BYTES:
            break
    return batch
