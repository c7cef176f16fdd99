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
    is durable, only putting it away (as failed: why) may be missing.
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
