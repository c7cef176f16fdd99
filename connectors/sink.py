"""The protocol of a sink: how results get from the output log to a target.

A drainer process (flows/drainer.py) reads the output log in order and hands its records to one
`Target`. A record may be handed over again after a crash; how repeats are absorbed is the
target's contract (a token, a tail that is read back, a file's own length).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class OutputRecord(NamedTuple):
    """One durable entry of the output log.

    kind: telemetry | windows | rejects | alarms (one event) | alarm_batches (the same events, many
    a record). number: its ordinal within its kind, rising by one. body: see
    `connectors.journal.columns` for the encoding of each kind.
    """

    kind: str
    number: int
    first_position: int
    last_position: int
    body: bytes


class Target(Protocol):
    """One target of one drainer."""

    kinds: tuple[str, ...]

    def open(self) -> dict[str, int] | None:
        """Connect. May return, by kind, the number of the last record that the target is known
        to hold (then the drainer goes on after it, be it lower or higher than its own cursor);
        None, or a kind left out: the cursor counts.
        Raises `ConnectError` (tried again with back-off) or `ConfigError`."""

    def send(self, records: Sequence[OutputRecord]) -> None:
        """Returns when all are durable at the target. Raises `DeliveryError` (the whole sequence
        is tried again) or `PermanentDeliveryError` (the drainer sends them one by one and moves
        those that still fail to `failed/`)."""

    def close(self) -> None:
        """Let go of the connection; never raises."""


@runtime_checkable
class RememberingTarget(Target, Protocol):
    """A target whose `open` tells exactly which records it holds, crash or not, so that the
    drainer need not write its cursor after every `send`."""

    def settle(self) -> None:
        """Called before the drainer writes its cursor: make all that was sent durable."""
