"""How a subject stands: the state of its alarm while an occurrence is open, or an operator has put it
aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from operators.state.references import flag_bits
from rules import lifecycle_table as t
from rules.alarm import AlarmRule, Evidence, Message, Subject, iso_ms
from rules.spec import Severity
from rules.timers_kernels import NEVER


class Standing(msgspec.Struct, eq=False):
    """flags: bits of `rules.lifecycle_table`. The rest is of the open occurrence, but for shelved_ns, until
    when it is shelved.

    What its newest event was told with is `evidence`, `message` and `data`; after a plain event
    (`rules.plain_events`) it is taken from the event's line once somebody asks.
    """

    subject: Subject
    flags: int = 0
    shelved_ns: int = 0
    alarm_id: str = ""
    onset_ns: int = 0
    severity: Severity = "medium"
    base_ns: int = 0  # event time of `raised`, from which escalation counts
    steps: int = 0  # of the rule's escalation, done
    line: bytes = b""  # of its newest event, where that was a plain one
    ingest_ns: int = 0  # of that event's evidence
    watched: bool = False  # the timers know it
    own_evidence: Evidence | None = None
    own_message: Message = ""
    own_data: dict[str, Any] | None = None

    @property
    def evidence(self) -> Evidence | None:
        """What its events rest on."""
        self._recall()
        return self.own_evidence

    @property
    def message(self) -> Message:
        """As its rule fills it."""
        self._recall()
        return self.own_message

    @property
    def data(self) -> dict[str, Any] | None:
        """Of its newest event; None before the first."""
        self._recall()
        return self.own_data

    def rest_on(self, evidence: Evidence, message: Message) -> None:
        """From now on the occurrence's events rest on this."""
        self._recall()
        self.own_evidence, self.own_message = evidence, message

    def told(self, data: dict[str, Any]) -> None:
        """`data` of its newest event."""
        self._recall()
        self.own_data = data

    def take_line(self, line: bytes, ingest_ns: int) -> None:
        """Its newest event is a plain one."""
        self.line, self.ingest_ns = line, ingest_ns
        self.own_evidence, self.own_message, self.own_data = None, "", None

    def _recall(self) -> None:
        if not self.line:
            return
        data = self.own_data = msgspec.json.decode(self.line)["data"]
        told = data["evidence"]
        self.own_evidence = Evidence(
            told["expression"], told["values"], told["quality"], told["position"], self.ingest_ns
        )
        self.own_message = data["message"]
        self.line, self.ingest_ns = b"", 0

    def next_timer(self) -> int:
        due = self.shelved_ns if self.flags & t.SHELVED else NEVER
        step = self.next_step()
        return due if step < 0 else min(due, self.base_ns + self.subject.rule.escalate[step].after)

    def next_step(self) -> int:
        """The step of the rule's escalation that comes next; -1 where none does."""
        if self.flags & t.OPEN and self.subject.rule.escalate:
            for at, step in enumerate(self.subject.rule.escalate[self.steps :], self.steps):
                if step.unless is None or not self.flags & t.ACKNOWLEDGED:
                    return at
        return -1

    def state(self) -> dict[str, Any]:
        """As an event tells it."""
        return state_of(self.flags, self.shelved_ns)

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        evidence = self.own_evidence
        return {
            "rule": [self.subject.rule.ruleId, self.subject.rule.part, self.subject.rule.version],
            "facts": self.subject.facts(),
            "flags": self.flags,
            "shelved_ns": self.shelved_ns,
            "alarm_id": self.alarm_id,
            "onset_ns": self.onset_ns,
            "severity": self.severity,
            "base_ns": self.base_ns,
            "steps": self.steps,
            "line": self.line,
            "ingest_ns": self.ingest_ns,
            "evidence": None if evidence is None or self.line else _plain(evidence),
            "message": "" if self.line else self.own_message,
            "data": None if self.line else self.own_data,
        }

    @classmethod
    def load(cls, kept: Mapping[str, Any], rule: AlarmRule) -> Standing:
        """What `export` gave, of a rule that is as it was then."""
        evidence = kept["evidence"]
        return cls(
            Subject(rule, **kept["facts"]),
            kept["flags"],
            kept["shelved_ns"],
            kept["alarm_id"],
            kept["onset_ns"],
            kept["severity"],
            kept["base_ns"],
            kept["steps"],
            kept.get("line", b""),
            kept.get("ingest_ns", 0),
            own_evidence=None if evidence is None else Evidence(**evidence),
            own_message=kept["message"],
            own_data=kept["data"],
        )


@dataclass(slots=True, eq=False)
class Tally:
    """Of one rule on one product's devices, since the beginning. active_ns: of occurrences that have
    cleared, from `raised` to `cleared`."""

    raised: int = 0
    cleared: int = 0
    active_ns: int = 0


def state_of(flags: int, shelved_ns: int = 0) -> dict[str, Any]:
    """Dimensions of `rules.lifecycle_table` as an event tells them."""
    return {
        "active": flags & t.ACTIVE != 0,
        "acknowledged": flags & t.ACKNOWLEDGED != 0,
        "latched": flags & t.LATCHED != 0,
        "shelved_until": iso_ms(shelved_ns) if flags & t.SHELVED else None,
        "suppressed": flags & (t.SUPPRESSED | t.OVERRULED) != 0,
        "out_of_service": flags & t.OUT_OF_SERVICE != 0,
    }


STATE_BITS: Final = tuple(flag_bits(state_of(flags)) for flags in range(1 << len(t.DIMENSIONS)))
"""Dimensions as bits of `operators.state.references.FLAGS`."""


def _plain(evidence: Evidence) -> dict[str, Any]:
    return {
        "expression": evidence.expression,
        "values": dict(evidence.values),
        "quality": evidence.quality,
        "position": evidence.position,
        "ingest_ns": evidence.ingest_ns,
    }
