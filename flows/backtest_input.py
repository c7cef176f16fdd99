"""What a plant took in, from its archive and then from its journal, as slices: the input of `backtest`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from connectors.errors import ConfigError, JournalGap
from connectors.files.recording import Archives, read_recording
from connectors.journal.archive import Standing, branches, range_of, read_controls
from connectors.journal.archive_reader import (
    ArchivedFile,
    archived_days,
    check_gaps,
    read_contents,
    read_files,
)
from connectors.journal.archive_store import open_store
from connectors.journal.entries import CONTROL, Entry
from connectors.journal.merging import Merger, empty_batch
from connectors.journal.reader import JournalReader
from connectors.journal.source import SLICE_BYTES, SLICE_ROWS, slices
from operators.batch import Control, Slice

MILLISECOND = 1_000_000
Say = Callable[[str], object]


@dataclass(slots=True)
class History:
    """Input between two times of the journal's clock; may be read many times.

    from_ms, to_ms: entries of from_ms <= clock < to_ms. files: those of the archive that may hold any;
    oldest, newest: of the whole archive, None where there is none. journal: its folder. inputs: other
    recorded input in place of all this.
    """

    from_ms: int | None = None
    to_ms: int | None = None
    files: Sequence[ArchivedFile] = ()
    oldest: ArchivedFile | None = None
    newest: ArchivedFile | None = None
    journal: Path | None = None
    inputs: Sequence[str] = ()
    with_gaps: bool = False
    say: Say = field(default=lambda told: None)

    @property
    def first_ms(self) -> int | None:
        """The clock of the oldest entry there is; None where that is not known before all is read."""
        if self.oldest is not None:
            return self.oldest.contents.first_ms
        if self.journal is not None:
            with JournalReader(self.journal) as reader:
                oldest = reader.heads(reader.oldest(), 1)
                return oldest[0].ms if oldest else None
        return None

    def slices(self) -> Iterator[Slice]:
        """The entries; what stood before them first, as controls. Raises ConfigError for what cannot be
        read, or was trimmed meanwhile."""
        if self.inputs:
            archives = Archives(self.from_ms, self.to_ms, self.with_gaps, self.say)
            yield from read_recording(self.inputs, archives=archives)
            return
        number, begun = 0, False
        for read in read_files(self.files, from_ms=self.from_ms, to_ms=self.to_ms, say=self.say):
            number, begun = number + 1, True
            if isinstance(read.found, Control):
                yield Slice(number, read.position, empty_batch(), read.found)
            else:
                yield Slice(number, read.position, read.found)
        if self.journal is not None:
            with JournalReader(self.journal) as reader:
                yield from _of_journal(reader, self.newest, self.from_ms, self.to_ms, begun)


def open_history(
    data: Path,
    archive: str | None,
    from_ms: int | None,
    to_ms: int | None,
    say: Say,
    *,
    with_gaps: bool = False,
) -> History:
    """The history of the plant in `data`, its archive at `archive` (None: it has none).

    Raises ConfigError where the archive cannot be read or lacks entries, JournalError where there is no
    journal.
    """
    history = History(from_ms, to_ms, journal=data / "journal", with_gaps=with_gaps, say=say)
    if archive is None:
        return history
    with JournalReader(data / "journal") as reader:
        identity, oldest = reader.identity(), reader.oldest()
    store = open_store(archive, data)
    try:
        names = store.names()
    except OSError as error:
        raise ConfigError(f"{store.where}  cannot be read: {error.strerror or error}") from error
    folders = branches(names, identity)
    of_it = [name for name in names if folders and name.startswith(f"{folders[-1]}/") and range_of(name)]
    if of_it:
        history.files = read_contents(store, of_it, archived_days(from_ms, to_ms))
        history.oldest, history.newest = (read_contents(store, [end(of_it)])[0] for end in (min, max))
        check_gaps(history.files, say if with_gaps else None)
        _check_joint(history, history.newest.contents.last, oldest)
    return history


def _check_joint(history: History, last: int, oldest: int) -> None:
    """That nothing is missing between the archive and the journal."""
    if oldest > last + 1:
        told = f"entries {last + 1} to {oldest - 1} are neither in the archive nor in the journal any more"
        if not history.with_gaps:
            raise ConfigError(f"{told}. --gaps goes on without them")
        history.say(told)


def _of_journal(
    reader: JournalReader,
    newest: ArchivedFile | None,
    from_ms: int | None,
    to_ms: int | None,
    begun: bool,
) -> Iterator[Slice]:
    following = reader.oldest()
    archived = newest.contents.last if newest is not None else 0
    following = max(following, archived + 1)
    if begun:
        standing = Standing()
    elif newest is not None and following == archived + 1:
        standing = _behind(newest)
    else:
        before = reader.last_plant(following)
        standing = Standing(plant=before.sha256 if before is not None else "")
    merger = Merger()
    while True:
        try:
            entries = reader.read(following, SLICE_ROWS, SLICE_BYTES)
        except JournalGap as error:
            raise ConfigError(f"{error}: it was trimmed meanwhile; start again") from error
        if not entries:
            return
        following = entries[-1].number + 1
        chosen: list[Entry] = []
        for entry in entries:
            if to_ms is not None and entry.ms >= to_ms:
                break
            if from_ms is not None and entry.ms < from_ms:
                if entry.kind == CONTROL:
                    standing.take(entry.control())
                continue
            chosen.append(entry)
        if chosen and not begun:
            begun = True
            for control in _standing(reader, standing, chosen[0].ms):
                yield Slice(chosen[0].number - 1, chosen[0].position, empty_batch(), control)
        if chosen:
            yield from slices(reader, chosen, merger)
        if to_ms is not None and entries[-1].ms >= to_ms:
            return


def _standing(reader: JournalReader, standing: Standing, ms: int) -> Iterator[Control]:
    for control in standing.controls(ms):
        if control.kind == "plant":
            files = reader.bundle(control.data["sha256"])
            control = control._replace(data={**control.data, "files": files})
        yield control


def _behind(file: ArchivedFile) -> Standing:
    """What stands behind a file."""
    standing = file.contents.standing.copy()
    with file.store.open(file.name) as source:
        for control in read_controls(source, file.path):
            standing.take(control)
    return standing
