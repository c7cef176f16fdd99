"""The `input-gap` system alarm: input of a source was deleted before it was read, and is lost.

One event says so and one that it is over, both at the gap's own place, so the alarm is no longer
active and stays open until someone has acknowledged it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from operators.batch import SEQ_PER_FRAME, Slice
from rules.alarm import AlarmRule, Evidence, Subject
from rules.context import Context
from rules.last_frame import LastFrame
from rules.message import parse_message
from rules.place import BY_TICK, CLEARED, RAISED, Place, Transition

RULE_ID: Final = "input-gap"
EXPRESSION: Final = "input was deleted before it was read"
MESSAGE: Final = "{source}: {missing} {what} were deleted before they were read"
_NAMES: Final = ("source", "missing", "what")


def input_gap_rule(rank: int) -> AlarmRule:
    """The alarm of every plant."""
    return AlarmRule(
        RULE_ID,
        "",
        hashlib.sha256(f"{RULE_ID}\x1f{EXPRESSION}\x1f{MESSAGE}".encode()).hexdigest()[:12],
        "high",
        parse_message(MESSAGE, metrics=_NAMES, params=(), attributes=(), owner="the plant"),
        EXPRESSION,
        required=True,
        rank=rank,
    )


class InputGaps:
    """The evaluator of the system alarm (`rules.place.Evaluator`)."""

    def __init__(self, context: Context) -> None:
        self.rule = input_gap_rule(len(context.alarms) + 1)  # after device-clock
        self.own_rules: Sequence[AlarmRule] = (self.rule,)
        self.frames = LastFrame()

    def run(self, item: Slice) -> list[Transition]:
        self.frames.begin(item)
        control = item.control
        if control is None or control.kind != "gap":
            return []
        data = control.data
        source = str(data.get("source") or "journal")
        missing = data.get("missing")
        values = {
            "source": source,
            "missing": "an unknown number of" if missing is None else missing,
            "what": str(data.get("what") or "messages"),
        }
        position = max(item.position - 1, 0)
        ingest_ns = self.frames.ingest_ns or self.frames.first_ns
        found = []
        for kind in (RAISED, CLEARED):
            place = Place(item.position * SEQ_PER_FRAME, BY_TICK, 0, control.at_ns, -1, self.rule.rank)
            subject = Subject(self.rule, f"source:{source}", -1, None, None, None, None, None)
            evidence = Evidence(EXPRESSION, values, "good", position, ingest_ns)
            found.append(
                Transition(
                    place,
                    subject,
                    kind,
                    control.at_ns,
                    control.at_ns,
                    evidence,
                    lambda _, name: values.get(name),
                )
            )
        return found

    def settle(self, item: Slice) -> None:
        self.frames.settle(item)

    def counters(self) -> Mapping[str, int]:
        return {}

    def export(self) -> dict[str, Any]:
        return {"frames": self.frames.export()}

    def load(self, kept: Mapping[str, Any]) -> None:
        self.frames.load(kept["frames"])
