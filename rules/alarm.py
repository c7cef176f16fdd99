"""Whose alarm, what an event rests on, and the event as JSON (FORMATS section 5).

What happens to an alarm when is `rules.lifecycle`'s; this module writes it down.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from operators.batch import SEQ_PER_FRAME, AlarmEvent
from rules.message import Field, Template, Value, shown
from rules.spec import Escalation, Severity

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TRANSITION, _SEVERITY = 0, 1  # pieces of a message that differ from event to event
_LATER_WORDS: Final = {"transition": _TRANSITION, "severity": _SEVERITY}

Message = str | list[str | int]
"""A message, filled; in a list the numbers stand for what only the event says."""


@lru_cache(maxsize=1 << 14)
def iso_ms(ns: int) -> str:
    """`2026-03-01T09:00:00.000Z`, cut down to milliseconds."""
    second, rest = divmod(ns, 1_000_000_000)
    return f"{_to_the_second(second)}.{rest // 1_000_000:03d}Z"


@lru_cache(maxsize=4096)
def _to_the_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]


@dataclass(slots=True, eq=False)
class AlarmRule:
    """One alarm that a rule makes: the rule, or one limit (or metric) of it, its `part`.

    expression: as evidence shows it, "" where it differs. required: acknowledging is asked for by
    the rule (None: by severity). suppressors: ruleIds, or `ruleId/part` of one limit. rank: by
    `rules.suppression`.
    """

    ruleId: str
    part: str
    version: str
    severity: Severity
    template: Template
    expression: str = ""
    required: bool | None = None
    latch: bool = False
    max_shelve: int | None = None
    escalate: tuple[Escalation, ...] = ()
    suppressors: tuple[str, ...] = ()
    shadow: bool = False
    rank: int = 0
    names: tuple[str, ...] = ()  # by which `suppressed_by` may call it: its rule, and this part of it
    varies: bool = True  # its message is not the same in every event of a subject
    tells_later: bool = False  # its message names what only the event says
    message: str | None = None  # where it is the same for every subject

    def __post_init__(self) -> None:
        self.names = (self.ruleId, f"{self.ruleId}/{self.part}") if self.part else (self.ruleId,)
        pieces = self.template.pieces
        self.varies = any(_varies(piece, self) for piece in pieces)
        self.tells_later = any(
            not isinstance(one, str) and not one.root and one.name in _LATER_WORDS for one in pieces
        )
        words = {"ruleId": self.ruleId, "condition": self.expression}
        if not self.varies and all(isinstance(one, str) or one.name in words for one in pieces):
            self.message = self.template.fill(lambda _, name: words[name])

    def to_acknowledge(self, severity: Severity) -> bool:
        """Whether an occurrence of that severity stays open until someone acknowledges it: by default
        down to medium; an `info` alarm is an event and never is."""
        if severity == "info":
            return False
        if self.required is not None:
            return self.required
        return severity in ("critical", "high", "medium")


class Subject(msgspec.Struct, eq=False):
    """Whose alarm: a rule of a device (or of a group), with the facts that every event repeats.

    who: the device, `hub:...`, `site:...` or `product:...`. slot: of the device; -1 of a group.
    """

    rule: AlarmRule
    who: str
    slot: int
    productId: str | None
    device_id: str | None
    hub_id: str | None
    site_id: str | None
    customer_id: str | None
    name: str = ""
    message: str | None = None  # where it is the same in every event

    def __post_init__(self) -> None:
        part = f"/{self.rule.part}" if self.rule.part else ""
        self.name = f"{self.who}/{self.rule.ruleId}{part}"

    def filled(self, expression: str, lookup: Callable[[str, str], Value] | None) -> Message:
        """The rule's message for what `lookup` gives of metrics, parameters and attributes."""
        if self.message is not None:
            return self.message
        if self.rule.message is not None:
            return self.rule.message
        if not self.rule.varies:
            self.message = self.rule.template.fill(lambda _, name: self._word(name, expression))
            return self.message
        pieces: list[str | int] = []
        for piece in self.rule.template.pieces:
            if isinstance(piece, str):
                pieces.append(piece)
            elif piece.root == "" and piece.name in _LATER_WORDS:
                pieces.append(_LATER_WORDS[piece.name])
            else:
                value = (
                    self._word(piece.name, expression)
                    if piece.root == ""
                    else (None if lookup is None else lookup(piece.root, piece.name))
                )
                pieces.append(shown(value, piece.format))
        return "".join(pieces) if all(isinstance(one, str) for one in pieces) else pieces  # type: ignore[arg-type]

    def _word(self, name: str, expression: str) -> Value:
        if name == "condition":
            return expression
        if name == "ruleId":
            return self.rule.ruleId
        value: str | None = getattr(self, name)
        return value

    def facts(self) -> dict[str, Any]:
        """What a snapshot holds of it; `Subject(rule, **facts)` is the same again."""
        return {
            "who": self.who,
            "slot": self.slot,
            "productId": self.productId,
            "device_id": self.device_id,
            "hub_id": self.hub_id,
            "site_id": self.site_id,
            "customer_id": self.customer_id,
        }


def _varies(piece: str | Field, rule: AlarmRule) -> bool:
    """Whether a piece of a message is not the same in every event of a subject."""
    if isinstance(piece, str):
        return False
    if piece.root:
        return True
    return piece.name in _LATER_WORDS or (piece.name == "condition" and not rule.expression)


class Evidence(msgspec.Struct, eq=False):
    """What an event rests on: the device's last in-order reading at that moment."""

    expression: str
    values: Mapping[str, Any]
    quality: str
    position: int
    ingest_ns: int


def alarm_id_of(subject: Subject, onset_ns: int) -> str:
    """The name of an occurrence: the same through its life."""
    return _digest(subject.rule.ruleId, subject.name, str(onset_ns // 1_000_000))


def told(message: Message, transition: str, severity: str) -> str:
    """The message of one event."""
    if isinstance(message, str):
        return message
    words = (transition, severity)
    return "".join(one if isinstance(one, str) else words[one] for one in message)


class Events:
    """Gives events their ids and sequences; knows how many each subject has at its newest position."""

    def __init__(self, plant: str, shard: str) -> None:
        self.plant = plant
        self.shard = shard
        # subject -> position of its newest event, events there, who, ingest time of that position
        self.counted: dict[str, tuple[int, int, str, int]] = {}

    def place(self, subject: str, position: int, ingest_ns: int) -> tuple[int, int]:
        """Position and ingest time of an event that rests on `position`: never before the subject's
        newest event, so that its `sequence` rises for ever."""
        known = self.counted.get(subject)
        return (position, ingest_ns) if known is None or known[0] <= position else (known[0], known[3])

    def write(self, subject: Subject, data: dict[str, Any], ingest_ns: int) -> AlarmEvent:
        """The event whose body is `data`; ingest_ns: its ingest time."""
        name = subject.name
        position: int = data["evidence"]["position"]
        known = self.counted.get(name)
        count = known[1] if known is not None and known[0] == position else 0
        self.counted[name] = (position, count + 1, subject.who, ingest_ns)
        sequence = f"{position * SEQ_PER_FRAME + count:020d}"
        event = {
            "specversion": "1.0",
            "id": _digest(self.plant, self.shard, name, sequence),
            "type": f"org.penstock.alarm.{data['transition']}",
            "source": f"/plants/{self.plant}",
            "subject": name,
            "time": data["event_time"],
            "sequence": sequence,
            "partitionkey": name,
            "data": data,
        }
        rule = subject.rule
        return AlarmEvent(position, subject.who, rule.ruleId, sequence, event, rule.shadow)

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        return {name: list(one) for name, one in self.counted.items()}

    def load(self, counted: Mapping[str, Any]) -> None:
        """Take over what `export` gave."""
        self.counted = {name: (one[0], one[1], one[2], one[3]) for name, one in counted.items()}

    def forget_before(self, newest: Callable[[str], int], keep: Container[str]) -> None:
        """Drop counts that can no longer matter: of subjects that are not in `keep` and whose device
        has had a reading at a later position (`newest` of its name; -1: none)."""
        self.counted = {
            name: one for name, one in self.counted.items() if name in keep or one[0] >= newest(one[2])
        }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8")).hexdigest()[:32]
