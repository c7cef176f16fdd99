"""What a files receiver keeps beside the journal: which file, and how far."""

from __future__ import annotations

import json
import os
from collections.abc import Container
from pathlib import Path

import msgspec

from connectors.errors import ConfigError


class Identity(msgspec.Struct, frozen=True):
    """What makes a file the same one: not its name alone (below `watch`), which comes again every day."""

    name: str
    inode: int
    size: int
    mtime_ns: int

    def goes_on(self, begun: Identity | None) -> bool:
        """Whether this may be the file that was begun, written on or not."""
        return begun is not None and (self.name, self.inode) == (begun.name, begun.inode)


def identity_of(watch: Path, name: str) -> Identity:
    """The file's that stands there now. Raises OSError."""
    found = (watch / name).stat()
    return Identity(name, found.st_ino, found.st_size, found.st_mtime_ns)


def as_json(value: msgspec.Struct) -> bytes:
    """ASCII: names of files may hold bytes that are no UTF-8, which msgspec does not write."""
    return json.dumps(msgspec.to_builtins(value)).encode()


def shown(name: str) -> str:
    """The name of a file for people and addresses: bytes that are no UTF-8 as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class Begun(msgspec.Struct):
    """How far a file is read.

    claim: names this reading of `file` in the keys of its appends, so that an append that was
    made but not noted here before a crash is not made again. offset, lines: how far rows are
    durable (see `rows.Row`). pending: where the append under way ends, so that after a crash it is made
    of the same rows, though the file has grown. head: CRC of its first `head_bytes`. finished: all of it
    is durable, only putting it away (as failed: why) may be missing. aside: the name that the file is about
    to get, under which no writer finds it; origin: the name that it had before it got that one.
    """

    file: Identity | None = None
    claim: str = ""
    offset: int = 0
    lines: int = 0
    pending: int = 0
    head_bytes: int = 0
    head: int = 0
    finished: bool = False
    why: str = ""
    aside: str = ""
    origin: str = ""

    def name(self, identity: Identity) -> str:
        """What the file was called when it was found."""
        return self.origin or identity.name


class Progress(msgspec.Struct):
    """What has been read. now: the file under way. paused: files that were begun and are read on later: they
    were written on, or could not be read for a while. stuck: files that are done and could not be put
    away."""

    now: Begun = msgspec.field(default_factory=Begun)
    paused: list[Begun] = msgspec.field(default_factory=list)
    stuck: list[Identity] = msgspec.field(default_factory=list)

    def turn_to(self, identity: Identity) -> None:
        """Make `now` what is known of a file, an empty one if nothing is; what is under way is paused."""
        if identity.goes_on(self.now.file):
            return
        if self.now.file is not None and not self.now.finished:
            self.paused.append(self.now)
        known = [begun for begun in self.paused if identity.goes_on(begun.file)]
        self.paused = [begun for begun in self.paused if begun not in known]
        self.now = known[0] if known else Begun()

    def aside(self) -> list[str]:
        """The names of files that were set aside."""
        return [one.file.name for one in (self.now, *self.paused) if one.origin and one.file is not None]

    def was_set_aside(self) -> None:
        """The file under way has the name `aside`: go on with others."""
        _named_aside(self.now)
        self.paused.append(self.now)
        self.now = Begun()

    def take_up(self, watch: Path) -> None:
        """Find out whether a file that was about to be set aside when the process ended has its new name."""
        for begun in (self.now, *self.paused):
            if begun.aside and (watch / begun.aside).exists():
                _named_aside(begun)
            begun.aside = ""

    def forget(self) -> None:
        """No file is under way."""
        self.now = Begun()

    def keep(self, present: Container[str]) -> bool:
        """Forget what is known of files that are there no more; False: there is none."""
        stuck = [identity for identity in self.stuck if identity.name in present]
        paused = [begun for begun in self.paused if begun.file is not None and begun.file.name in present]
        changed = (stuck, paused) != (self.stuck, self.paused)
        self.stuck, self.paused = stuck, paused
        return changed

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Raises OSError, and ConfigError for what is no progress."""
        try:
            return msgspec.convert(json.loads(path.read_bytes()), cls)
        except FileNotFoundError:
            return cls()
        except (ValueError, msgspec.ValidationError) as error:
            raise ConfigError(
                f"{path}: {error}; remove it, and files that were begun are read again"
            ) from error

    def save(self, path: Path) -> None:
        """Durable when it returns. Raises OSError."""
        beside = path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(as_json(self))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)


def _named_aside(begun: Begun) -> None:
    assert begun.file is not None
    begun.origin = begun.file.name
    begun.file = msgspec.structs.replace(begun.file, name=begun.aside)
    begun.aside = ""
