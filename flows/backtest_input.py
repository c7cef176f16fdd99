"""What a plant took in, from its archive and then from its journal, as slices: the input of `backtest`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from connectors.errors import ConfigError, JournalGap
from connectors.files.recording import Archives, read_recording
from connectors.journal.archive import Standing, read_controls
from connectors.journal.archive_reader import ArchivedFile, archived_files, check_gaps, read_files
from connectors.journal.archive_store import REMOTE
from connectors.journal.entries import CONTROL, Entry
from connectors.journal.merging import Merger, empty_batch
from connectors.journal.reader import JournalReader
from connectors.journal.source import SLICE_BYTES, SLICE_ROWS, slices
from operators.batch import Control, Slice

MILLISECOND = 1_000_000
Say = Callable[[str], object]


@dataclass(slots=True)
class History:
    """Journaled input between two times of the journal's clock; may be read many times.

    files: of the archive, none where there is none. journal: its folder, None for files alone.
    inputs: other recorded input in place of both. first_ms: of the oldest entry that is left.
    """

    files: Sequence[ArchivedFile] = ()
    journal: Path | None = None
    inputs: Sequence[str] = ()
    say: Say = field(default=lambda told: None)
    with_gaps: bool = False

    @property
    def first_ms(self) -> int | None:
        """The clock of the oldest entry; None where that is not known before all is read."""
        if self.files:
            return self.files[0].contents.first_ms
        if self.journal is not None:
            with JournalReader(self.journal) as reader:
                oldest = reader.heads(reader.oldest(), 1)
                return oldest[0].ms if oldest else None
        return None

    def slices(self, from_ms: int | None, to_ms: int | None) -> Iterator[Slice]:
        """Entries of from_ms <= clock < to_ms; what stood before them first, as controls.

        Raises ConfigError for what cannot be read, JournalGap where the journal was trimmed meanwhile.
        """
        if self.inputs:
            archives = Archives(from_ms, to_ms, self.with_gaps, self.say)
            yield from read_recording(self.inputs, archives=archives)
            return
        number, begun = 0, False
        for read in read_files(self.files, from_ms=from_ms, to_ms=to_ms, say=self.say):
            number, begun = number + 1, True
            if isinstance(read.found, Control):
                yield Slice(number, read.position, empty_batch(), read.found)
            else:
                yield Slice(number, read.position, read.found)
        if self.journal is not None:
            with JournalReader(self.journal) as reader:
                yield from _of_journal(reader, self.files, from_ms, to_ms, begun)


def open_history(data: Path, archive: str | None, say: Say, *, with_gaps: bool = False) -> History:
    """The history of the plant in `data`, its archive at `archive` (None: it has none).

    Raises ConfigError where the archive cannot be read, JournalError where there is no journal.
    """
    with JournalReader(data / "journal") as reader:
        identity = reader.identity()
    files: list[ArchivedFile] = []
    if archive is not None:
        where = f"{archive.rstrip('/')}/journal={identity}" if archive.startswith(REMOTE) else ""
        folder = data / archive / f"journal={identity}"
        if where or folder.is_dir():
            files = archived_files(where or str(folder))
            check_gaps(files, say if with_gaps else None)
    history = History(files, data / "journal", say=say, with_gaps=with_gaps)
    if files:
        _check_joint(history, with_gaps)
    return history


def _check_joint(history: History, with_gaps: bool) -> None:
    """That nothing is missing between the archive and the journal."""
    assert history.journal is not None
    last = history.files[-1].contents.last
    with JournalReader(history.journal) as reader:
        oldest = reader.oldest()
    if oldest > last + 1:
        told = f"entries {last + 1} to {oldest - 1} are neither in the archive nor in the journal any more"
        if not with_gaps:
            raise ConfigError(f"{told}. --gaps goes on without them")
        history.say(told)


def _of_journal(
    reader: JournalReader,
    files: Sequence[ArchivedFile],
    from_ms: int | None,
    to_ms: int | None,
    begun: bool,
) -> Iterator[Slice]:
    following = reader.oldest()
    if files:
        following = max(following, files[-1].contents.last + 1)
    if begun or (files and following == files[-1].contents.last + 1):
        standing = Standing() if begun else _behind(files[-1])
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
