"""Writes a journal into an archive, entry by entry in order, each exactly once.

A file is begun with the first entry that no file holds and ends before the first entry of another
hour of the journal's clock, or before it would become too large. So where files end is a function of
the journal and of what is archived already, and after a crash the same file is written again under
the same name. Where to go on is told by the files themselves and, where they have been moved away,
by the cursor, `DATA/cursors/archive.msgpack`, which is written after a file is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from connectors.durable import replace_durably
from connectors.errors import ConfigError, JournalError
from connectors.journal import archive
from connectors.journal.archive import Contents, Span, Standing
from connectors.journal.archive_store import ArchiveStore
from connectors.journal.entries import CONTROL, FRAMES, Entry
from connectors.journal.reader import Head, JournalReader

HEADS: Final = 4096  # looked at in one go
MAP_SHARE: Final = 8  # a file is at most this part of the journal's cap

log = logging.getLogger("archiver")


class ArchiveCursor(msgspec.Struct):
    """Everything of journal `journal` up to `entry` is in the archive; standing: behind it."""

    journal: str
    entry: int
    standing: Standing


class Archiver:
    """One journal's way into its archive.

    reader: of the journal. cursor: the path of the cursor file. keep_ms: files whose last entry is
    older than this, by the journal's clock, are deleted, but never the newest. journal_bytes: the
    journal's cap; a file holds an eighth of it at most, so that waiting for a file never fills it.
    """

    def __init__(
        self, reader: JournalReader, store: ArchiveStore, cursor: Path, *, keep_ms: int, journal_bytes: int
    ) -> None:
        self.reader = reader
        self.store = store
        self.keep_ms = keep_ms
        self.file_bytes = min(archive.FILE_BYTES, journal_bytes // MAP_SHARE)
        self.entry = 0  # the last one in the archive
        self.frames = 0  # written since the start
        self.written = 0  # files since the start
        self.deleted = 0
        self.missing: tuple[int, int] | None = None  # entries that were trimmed before they could be archived
        self._cursor_path = cursor
        self._folder = ""
        self._journal = ""
        self._plants: set[str] = set()
        self._standing = Standing()
        self._names: dict[str, int] = {}
        self._last_ms: dict[str, int] = {}
        self._span: Span | None = None
        self._is_open = False

    @property
    def files(self) -> int:
        """How many files of this journal the archive holds."""
        return len(self._names)

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(self._names.values())

    def open(self) -> None:
        """Find out where to go on. Raises OSError where the archive is away."""
        journal = self.reader.identity()
        if not journal:
            raise JournalError("the journal has no identity yet; its process writes one when it starts")
        self._folder = self._current_folder(journal)
        self._journal = self._folder.removeprefix("journal=")
        self._plants = set(self.store.names(f"{self._folder}/plants"))
        self.store.clean(self._folder)
        names = self.store.names(self._folder)
        self._names = {name: size for name, size in names.items() if archive.range_of(name)}
        self.entry, self._standing = self._known()
        oldest = self.reader.oldest()
        if self.entry == 0 or self.entry + 1 < oldest:
            if self.entry or oldest > 1:
                self.missing = (self.entry + 1, oldest - 1)
                log.warning("entries %d to %d were trimmed before they could be archived", *self.missing)
            self._begin_at(oldest)
        self._span = None
        self._is_open = True

    def step(self) -> bool:
        """Write the next file if it is whole; returns whether there was one. Raises OSError where
        the archive is away or full; the same call then does it again."""
        if not self._is_open:
            self.open()
        span = self._next_span()
        if span is None:
            return False
        self._write(span)
        self._delete_old(span.last_ms)
        return True

    def close(self) -> None:
        """After an error: `step` begins by looking at the archive again."""
        self._is_open = False

    # -- where to go on

    def _current_folder(self, journal: str) -> str:
        """`journal=ID`, or the newest of its branches: a journal that was put back to an earlier
        state (a backup) writes other entries under numbers that the archive has already."""
        branches = archive.branches(self.store.names(), journal)
        if not branches:
            return f"journal={journal}"
        newest = branches[-1]
        names = {name for name in self.store.names(newest) if archive.range_of(name)}
        if not names or self._agrees(max(names)):
            return newest
        made = f"journal={journal}.{archive.branch_number(newest) + 1}"
        log.warning(
            "%s/%s holds entries that this journal does not have; going on in %s",
            self.store.where,
            newest,
            made,
        )
        return made

    def _agrees(self, name: str) -> bool:
        found = archive.range_of(name)
        assert found is not None
        if found[1] > self.reader.last():
            return False
        if found[1] < self.reader.oldest():
            return True
        contents = self._contents(name)
        return contents is None or self.reader.heads(found[1], 1)[0].ms == contents.last_ms

    def _known(self) -> tuple[int, Standing]:
        """The last entry in the archive, and what stands behind it."""
        best, standing = 0, Standing()
        while self._names:
            newest = max(self._names)
            contents = self._contents(newest)
            if contents is not None:
                best, standing = contents.last, contents.standing
                with self.store.open(newest) as source:
                    for control in archive.read_controls(source, newest):
                        standing.take(control)
                break
            log.warning("%s/%s is not whole; it is written again", self.store.where, newest)
            self.store.delete(newest)
            del self._names[newest]
        try:
            cursor = msgspec.msgpack.decode(self._cursor_path.read_bytes(), type=ArchiveCursor)
        except (OSError, msgspec.MsgspecError):
            return best, standing
        if cursor.journal == self._journal and best < cursor.entry <= self.reader.last():
            return cursor.entry, cursor.standing
        return best, standing

    def _contents(self, name: str) -> Contents | None:
        try:
            with self.store.open(name) as file:
                return archive.open_file(file, name)[1]
        except ConfigError:
            return None

    def _begin_at(self, oldest: int) -> None:
        """Go on at the oldest entry: of what stood before it, the plant alone is known."""
        before = self.reader.last_plant(oldest)
        self.entry = oldest - 1
        self._standing = Standing(plant=before.sha256 if before is not None else "")

    # -- a file

    def _next_span(self) -> Span | None:
        """The entries of the next file, once it is known where it ends."""
        while True:
            following = self.entry + 1 if self._span is None else self._span.last + 1
            heads = self.reader.heads(following, HEADS)
            for head in heads:
                if self._span is None:
                    self._span = Span(head.number, head.ms, head.position)
                elif self._is_over(self._span, head):
                    return self._span
                _add(self._span, head)
            if len(heads) < HEADS:
                return None

    def _is_over(self, span: Span, head: Head) -> bool:
        return archive.hour(head.ms) != archive.hour(span.first_ms) or span.size + head.size > self.file_bytes

    def _write(self, span: Span) -> None:
        self._write_plant(self._standing.plant)
        after = self._standing.copy()
        contents = Contents(
            archive.FORMAT,
            self._journal,
            span.first,
            span.last,
            span.first_ms,
            span.last_ms,
            span.position,
            span.frames,
            self._standing,
        )

        def fill(file: IO[bytes]) -> None:
            archive.write_file(file, contents, self._entries(span, after), self.reader)

        name = f"{self._folder}/{span.name}"
        self._names[name] = self.store.write(name, fill)
        self._last_ms[name] = span.last_ms
        self._write_plant(after.plant)
        self.entry, self._standing, self._span = span.last, after, None
        self.frames += span.frames
        self.written += 1
        cursor = ArchiveCursor(self._journal, self.entry, after)
        replace_durably(self._cursor_path, msgspec.msgpack.encode(cursor))
        log.info("entries %d to %d are in %s/%s", span.first, span.last, self.store.where, name)

    def _entries(self, span: Span, standing: Standing) -> Iterator[Entry]:
        following = span.first
        while following <= span.last:
            entries = self.reader.read(following, archive.GROUP_ROWS, archive.GROUP_BYTES, span.last)
            for entry in entries:
                if entry.kind == CONTROL:
                    standing.take(entry.control())
                yield entry
            following = entries[-1].number + 1

    def _write_plant(self, sha256: str) -> None:
        name = f"{self._folder}/plants/{sha256}{archive.SUFFIX}"
        if not sha256 or name in self._plants:
            return
        files = self.reader.bundle(sha256)
        self.store.write(name, lambda file: archive.write_plant(file, files))
        self._plants.add(name)

    # -- keep

    def _delete_old(self, now_ms: int) -> None:
        """Delete files whose last entry is older than `keep` at `now_ms`, the newest never."""
        for name in sorted(self._names)[:-1]:
            ended_ms = self._ended_ms(name)
            if ended_ms is None:
                continue  # whatever it is, it is not ours to delete
            if ended_ms >= now_ms - self.keep_ms:
                return
            self.store.delete(name)
            del self._names[name]
            self._last_ms.pop(name, None)
            self.deleted += 1
            log.info("deleted %s/%s: older than archive.keep", self.store.where, name)

    def _ended_ms(self, name: str) -> int | None:
        if name not in self._last_ms:
            contents = self._contents(name)
            if contents is None:
                return None
            self._last_ms[name] = contents.last_ms
        return self._last_ms[name]


def _add(span: Span, head: Head) -> None:
    span.last, span.last_ms = head.number, head.ms
    span.size += head.size
    span.frames += head.frames if head.kind == FRAMES else 0


def describe(archiver: Archiver) -> dict[str, Any]:
    """Numbers for health and metrics."""
    last = archiver.reader.last()
    return {
        "archived_entry": archiver.entry,
        "lag_entries": last - archiver.entry,
        "files": archiver.files,
        "bytes": archiver.bytes,
        "frames_total": archiver.frames,
        "files_written_total": archiver.written,
        "files_deleted_total": archiver.deleted,
    }
