"""What a server may still hold for a source that went away: a subscription with its unacknowledged
responses and the queues of its items. Kept on disk, so that the next process goes on with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from connectors.opcua.config import OpcuaConfig
from connectors.opcua.nodes import Item


class Held(msgspec.Struct):
    """A subscription at a server. server: the run of the server that made it; asked: a hash of what was
    asked for; name: of its responses in the journal, for ever; last: number of the last response that is in
    the journal, 0 where nobody knows; tries: to take it over, without an answer."""

    subscription: int
    server: str
    asked: str
    name: str
    silence_s: float
    missing: dict[int, str]
    server_items: dict[int, int]
    last: int = 0
    tries: int = 0


def asked_for(config: OpcuaConfig, items: Sequence[Item], namespaces: Sequence[str]) -> str:
    """The same for two subscriptions that give the same frames for the same responses."""
    said = (config.publishing, config.sampling, config.queue, config.max_frame, config.enumerations)
    return hashlib.sha256(repr((said, list(items), list(namespaces))).encode()).hexdigest()


def server_run(endpoint: str, started: object) -> str:
    """Names a run of a server: a restarted one gives the numbers of subscriptions anew, to anybody."""
    return f"{endpoint} {started.isoformat() if isinstance(started, datetime) else started}"


class HeldFile:
    """The place of one session's `Held` on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Held | None:
        """What was written last; None where nothing readable is."""
        with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.json.decode(self.path.read_bytes(), type=Held)
        return None

    def write(self, held: Held, last: int) -> None:
        """Replace it, with `last` in place of its own: 0 while responses are taken, so that after a crash
        nobody relies on an old number. A crash leaves the old or the new file. Raises `OSError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(msgspec.structs.replace(held, last=last)))
        os.replace(beside, self.path)

    def forget(self) -> None:
        """There is nothing held any more."""
        self.path.unlink(missing_ok=True)
