"""Files receiver: a watched folder whose files are read once each, then put away."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from connectors.durable import sync_folder
from connectors.errors import ConfigError, JournalError
from connectors.files.config import FilesConfig, encoding_problem, folder_problem
from connectors.files.content import BrokenFileError, plain_name
from connectors.files.finding import Finder
from connectors.files.progress import Begun, Identity, Progress, identity_of, shown
from connectors.files.putting_away import PuttingAway
from connectors.files.rows import Row, file_rows
from connectors.files.writers import is_open_for_writing
from connectors.source import Appender, Frame, SourceStatus, Surroundings

BATCH_ROWS: Final = 4096
BATCH_BYTES: Final = 2_000_000
FINISH_S: Final = 3.0  # of the 5 s in which a receiver ends
HEAD_BYTES: Final = 1024  # by which a file that was written anew in its place is known

log = logging.getLogger(__name__)


class FilesReceiver:
    """A folder as a source.

    Each file that matches is read once it has not changed for `settle`, in the order of (time of
    change, name), and then put away as `after` says. Every row of it is in the journal exactly once,
    whenever the process is killed. A file of which nothing more can be read (damaged, without the columns
    that are named) gives what was read, one reject that says why, and is put away as failed.

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
        self._away = PuttingAway(self._watch, config)
        self._finder = Finder(self._watch, config, self._away)
        self._held: set[Identity] = set()  # read to their ends, and open for writing
        self._told: set[str] = set()
        self._counts = {"files_read": 0.0, "files_failed": 0.0}
        self._stopping = False
        self._reading: BinaryIO | None = None
        self._appender: Appender
        if config.separator is not None and len(config.separator) != 1:
            raise ConfigError(f"source {name}: separator must be one character")
        problems = [folder_problem(config.done), folder_problem(config.failed)]
        problems += [encoding_problem(config.encoding)] if config.encoding is not None else []
        for problem in filter(None, problems):
            raise ConfigError(f"source {name}: {problem}")

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
            self._progress = Progress.load(self._file)
            self._progress.take_up(self._watch)
        except OSError as error:
            raise ConfigError(f"source {self.name}: {error.filename}: {error.strerror}") from error
        reading = asyncio.create_task(self._read_for_ever(), name=f"{self.name}-read")
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping = True
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
            found = await asyncio.to_thread(self._look)
            if found is not None:
                self.status.state = "connected"
                if not found and not self._progress.stuck:
                    self.status.detail = str(self._watch)
            if (found is not None) != connected:
                connected = not connected
                kind = "connected" if connected else "disconnected"
                await self._appender.control(kind, {"source": self.name})
            for number, identity in enumerate(found or ()):
                self._counts["files_waiting"] = float(len(found or ()) - number)
                self.status.extra = dict(self._counts)
                await self._read(identity)
            self._counts["files_waiting"] = 0.0
            self.status.extra = dict(self._counts)
            await asyncio.sleep(self.config.poll / 1e9)

    def _look(self) -> list[Identity] | None:
        """The files that have settled and are to be read, or None when the folder cannot be read."""
        progress = self._progress
        try:
            settled = self._finder.look(time.monotonic(), progress.aside())
        except OSError as error:
            if self.status.state != "disconnected":
                log.error("%s: %s", self._watch, error.strerror)
            self.status.state, self.status.detail = "disconnected", f"{self._watch}: {error.strerror}"
            return None
        if progress.keep(self._finder.present):
            self._save()
        ready = [
            identity for identity in settled if identity not in progress.stuck and not self._is_held(identity)
        ]
        # one that was begun before a restart goes on first: its rows stay together
        return sorted(ready, key=lambda file: (not file.goes_on(progress.now.file), file.mtime_ns, file.name))

    def _is_held(self, identity: Identity) -> bool:
        """Whether a file is read to its end, has not changed since, and is still open for writing."""
        with suppress(OSError):  # reading it will tell
            return identity in self._held and is_open_for_writing(self._watch / identity.name)
        return False

    def _has_changed(self, identity: Identity) -> bool:
        return identity_of(self._watch, identity.name) != identity

    async def _read(self, identity: Identity) -> None:
        """All rows of one file that are not in the journal yet, then away with it."""
        progress, path = self._progress, self._watch / identity.name
        if progress.now.finished and identity == progress.now.file:
            self._put_away(identity, progress.now.why)  # the process ended just before
            return
        try:
            progress.turn_to(identity)
            if not _is_begun(progress.now, identity, path):
                head = await asyncio.to_thread(_head, path, HEAD_BYTES)
                progress.now = Begun(claim=uuid.uuid4().hex, head_bytes=len(head), head=zlib.crc32(head))
            now = progress.now
            now.file, now.finished = identity, False
            self._save()
            name = shown(now.name(identity))
            log.info("reading %s (%d bytes) from offset %d", name, identity.size, now.offset)
            topic = shown(plain_name(now.name(identity), self.config))
            why = await self._read_rows(identity, path, topic)
            is_open = is_open_for_writing(path)
            if self._has_changed(identity):
                return  # it has grown or changed meanwhile: it settles again and is read on from here
            if is_open:
                self._held.add(identity)
                self.status.detail = f"{self._watch}: {name} is read to its end, and open for writing"
                return
            if self.config.after == "delete" and not why and not now.origin:
                self._set_aside(identity)
                return
            if why:
                log.error("%s: %s", topic, why)
                refused = Frame(topic, topic.encode(), headers=(("resync", why),))
                await self._append([refused], None, identity.size)
        except FileNotFoundError:
            log.warning(
                "%s is gone before its end (%d bytes read)", shown(identity.name), progress.now.offset
            )
            progress.forget()
            self._save()
            return
        except OSError as error:
            self._tell_once(f"{shown(identity.name)}: {error.strerror}")
            return
        now.finished, now.why = True, why
        self._save()
        self._put_away(identity, why)

    def _set_aside(self, identity: Identity) -> None:
        """Give a file that is read a hidden name before it is deleted: from there on nobody can begin to
        write it, and what was written in the last moment is read once it has settled again."""
        progress, now = self._progress, self._progress.now
        found = Path(identity.name)
        now.aside = found.with_name(f".{now.claim[:8]}.{found.name[-200:]}").as_posix()
        self._save()
        try:
            (self._watch / identity.name).rename(self._watch / now.aside)
        except OSError as error:
            self._stays(identity, "done", error)
        else:
            sync_folder((self._watch / identity.name).parent)
            progress.was_set_aside()
            self._finder.forget(identity.name)
        self._save()

    async def _read_rows(self, identity: Identity, path: Path, topic: str) -> str:
        """The rows that are not in the journal yet; returns why nothing more can be read, or "". One
        batch is read while the one before it is appended."""
        now, self._reading = self._progress.now, None
        rows = file_rows(
            path,
            self.config,
            now.offset,
            now.lines,
            topic=topic,
            give_up=lambda: self._stopping,
            opened=self._opened,
        )
        ahead = asyncio.create_task(asyncio.to_thread(self._batch, rows, now.pending))
        try:
            while True:
                batch, why, read = await ahead
                if (
                    batch
                    and not batch[-1].ended
                    and (is_open_for_writing(path) or self._has_changed(identity))
                ):
                    batch.pop()  # it is being written on: what has no line end yet may be half a row
                if not batch:
                    return why
                if not why:
                    ahead = asyncio.create_task(asyncio.to_thread(self._batch, rows))
                await self._append([row.frame for row in batch], batch[-1], read)
                if why:
                    return why
        finally:
            ahead.cancel()
            await asyncio.wait([ahead], timeout=1.0)

    def _opened(self, file: BinaryIO) -> None:
        self._reading = file

    def _batch(self, rows: Iterator[Row], until: int = 0) -> tuple[list[Row], str, int]:
        """See `_batch`; and how many bytes of the file are read. In the thread that reads: nobody else may
        touch the file."""
        batch, why = _batch(rows, until)
        file = self._reading
        return batch, why, -1 if file is None or file.closed else file.tell()

    async def _append(self, frames: list[Frame], last: Row | None, read: int) -> None:
        """Make frames durable, and note it; last: the row of the last of them; read: bytes of the file,
        -1 = all."""
        now, status = self._progress.now, self.status
        if last is not None:
            now.pending = last.end
            self._save()
        end = "broken" if last is None else str(last.end)
        await self._appender.append(frames, f"files:{self.name}:{now.claim}:{now.offset}:{end}")
        if last is not None:
            now.offset, now.lines = last.end, last.lines
        assert now.file is not None
        status.frames += len(frames)
        status.bytes += sum(len(frame.payload) for frame in frames)
        status.last_frame_ms = int(time.time() * 1000)
        at = now.file.size if read < 0 else read
        status.extra = {**self._counts, "file_bytes": float(now.file.size), "file_offset": float(at)}
        share = 100 * at / max(now.file.size, 1)
        status.detail = f"{self._watch}: {shown(now.file.name)}, {min(share, 100):.0f} % read"

    def _put_away(self, identity: Identity, why: str) -> None:
        """Move or mark a file that is read, and forget it."""
        progress, kind = self._progress, "failed" if why else "done"
        name = progress.now.name(identity)
        self._counts["files_failed" if why else "files_read"] += 1
        try:
            where = self._away.put(identity, why, name)
        except OSError as error:
            self._stays(identity, kind, error)
        else:
            self._finder.forget(identity.name)
            self.status.detail = str(self._watch)
            log.info("%s is %s: %s", shown(name), kind, shown(where))
            progress.forget()
        self._save()

    def _stays(self, identity: Identity, kind: str, error: OSError) -> None:
        """A file that is read and cannot be put away is not looked at again."""
        self._progress.stuck.append(identity)
        self._tell_once(f"{shown(identity.name)} is {kind}, but cannot be put away: {error.strerror}")
        self._progress.forget()

    def _tell_once(self, text: str) -> None:
        self.status.detail = text
        if text not in self._told:
            self._told.add(text)
            log.error("%s", text)

    def _save(self) -> None:
        try:
            self._progress.save(self._file)
        except OSError as error:
            raise JournalError(f"{self._file}: {error.strerror}") from error


def _is_begun(now: Begun, identity: Identity, path: Path) -> bool:
    """Whether the file is the one begun, so that reading goes on behind what was read."""
    if now.file is None or (now.finished and not now.origin):
        return False  # once it is done, another file may have got its inode and its name; not one set aside
    if identity == now.file:
        return True
    # it was written on, or written anew in its place
    return identity.size >= now.file.size and zlib.crc32(_head(path, now.head_bytes)) == now.head


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _batch(rows: Iterator[Row], until: int = 0) -> tuple[list[Row], str]:
    """The next rows for one append, and why there are no more. The same offset gives the same rows
    again after a restart. until: where they end, if that is known."""
    batch: list[Row] = []
    held = 0
    try:
        for row in rows:
            batch.append(row)
            held += len(row.frame.payload)
            if row.end == until or (row.end > until and (len(batch) >= BATCH_ROWS or held >= BATCH_BYTES)):
                break
    except BrokenFileError as error:
        return batch, str(error)
    return batch, ""
