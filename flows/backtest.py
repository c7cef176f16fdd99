"""Rules over recorded input against what really happened.

Both sides are the live engine over the same input: once with the plants that were applied in it,
which is what happened, and once with another plant, its rules, products and parameters. An
**occurrence** is one raised alarm with its end; two occurrences match where one subject's lasted at
the same time, each with one other at most, in the order in which they were raised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from flows import specs
from flows.engine import run_slices
from flows.plant_file import Plant
from operators.batch import Slice
from operators.expression.grammar import parse
from operators.expression.tree import Duration, Expr, ExpressionError, walk
from operators.spec import DAY, HOUR
from rules.spec import AbsenceRule, Rule, SequenceRule, Step

WARM_UP: Final = HOUR  # at least
MONTH: Final = 31 * DAY
NOW, THEN, BOTH = "only now", "only then", "both"


@dataclass(slots=True, frozen=True)
class Occurrence:
    """One alarm, raised and perhaps cleared; times as in events, `2026-03-01T09:00:00.000Z`."""

    ruleId: str
    subject: str
    device_id: str | None
    alarm_id: str
    severity: str
    shadow: bool
    raised: str
    cleared: str | None = None

    def times(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "alarm_id": self.alarm_id,
            "severity": self.severity,
            "raised": self.raised,
            "cleared": self.cleared,
        }


@dataclass(slots=True, frozen=True)
class Pair:
    """What became of one alarm: with these rules, and then."""

    now: Occurrence | None
    then: Occurrence | None

    @property
    def what(self) -> str:
        return THEN if self.now is None else NOW if self.then is None else BOTH

    @property
    def one(self) -> Occurrence:
        """Either of them, the one of now before that of then."""
        found = self.now or self.then
        assert found is not None
        return found

    def line(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "what": self.what.replace(" ", "_"),
            "ruleId": self.one.ruleId,
            "subject": self.one.subject,
            "device_id": self.one.device_id,
            "shadow": self.one.shadow,
            "now": self.now.times() if self.now is not None else None,
            "then": self.then.times() if self.then is not None else None,
        }


@dataclass(slots=True)
class Comparison:
    """One rule: how many alarms it makes now, and how many there were then. shadow: with the rules
    of now; gone: it is none of them."""

    ruleId: str
    shadow: bool
    gone: bool
    pairs: list[Pair] = field(default_factory=list)

    @property
    def now(self) -> int:
        return sum(pair.now is not None for pair in self.pairs)

    @property
    def then(self) -> int:
        return sum(pair.then is not None for pair in self.pairs)

    def count(self, what: str) -> int:
        """How many pairs are of that kind."""
        return sum(pair.what == what for pair in self.pairs)

    def line(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "ruleId": self.ruleId,
            "shadow": self.shadow,
            "gone": self.gone,
            "now": self.now,
            "then": self.then,
            "both": self.count(BOTH),
            "only_now": self.count(NOW),
            "only_then": self.count(THEN),
        }


class Occurrences:
    """Gathers occurrences from finished slices, and counts frames."""

    def __init__(self) -> None:
        self.frames = 0
        self._found: dict[str, Occurrence] = {}  # by alarm_id, in the order of raising

    def take(self, item: Slice) -> None:
        """What one finished slice holds."""
        self.frames += len(item.frames)
        for alarm in item.alarms:
            data = alarm.event["data"]
            transition, alarm_id = data["transition"], data["alarm_id"]
            if transition == "raised":
                self._found[alarm_id] = Occurrence(
                    data["ruleId"],
                    alarm.event["subject"],
                    data["device_id"],
                    alarm_id,
                    data["severity"],
                    alarm.shadow,
                    data["event_time"],
                )
            elif transition == "cleared" and alarm_id in self._found:
                known = self._found[alarm_id]
                self._found[alarm_id] = _ended(known, data["event_time"])

    def all(self) -> list[Occurrence]:
        """In the order in which they were raised."""
        return sorted(self._found.values(), key=lambda one: (one.raised, one.subject))


def occurrences(plant: Plant, slices: Iterable[Slice], *, as_applied: bool) -> Occurrences:
    """Run a plant over slices. as_applied: the plants that the slices bring take its place from
    where they were applied; else they are left out."""
    found = Occurrences()
    chosen = slices if as_applied else without_plants(slices)
    run_slices(plant, chosen, found.take)
    return found


def without_plants(slices: Iterable[Slice]) -> Iterator[Slice]:
    """The slices but those that apply a plant."""
    return (item for item in slices if item.control is None or item.control.kind != "plant")


def compare(
    now: Sequence[Occurrence],
    then: Sequence[Occurrence],
    rules: Mapping[str, bool],
    *,
    start: str | None = None,
    end: str | None = None,
    only: Iterable[str] = (),
) -> list[Comparison]:
    """By rule, those of now in their order, then those that are gone.

    rules: ruleId -> whether it is in shadow, of now. start, end: alarms count that were raised within,
    start included; one that was raised outside still counts as the other side of one within.
    only: rules to look at; all where there is none.
    """
    chosen = set(only)
    found = {rule: Comparison(rule, shadow, False) for rule, shadow in rules.items()}
    sides: dict[str, tuple[list[Occurrence], list[Occurrence]]] = defaultdict(lambda: ([], []))
    for side, listed in enumerate((now, then)):
        for one in listed:
            sides[one.subject][side].append(one)
    for subject in sorted(sides):
        for pair in pairs(*sides[subject]):
            if any(one is not None and _is_within(one.raised, start, end) for one in (pair.now, pair.then)):
                rule = pair.one.ruleId
                made = found.setdefault(rule, Comparison(rule, pair.one.shadow, True))
                made.pairs.append(pair)
    for rule_of in found.values():
        rule_of.pairs.sort(key=lambda pair: (pair.one.raised, pair.one.subject))
    return [rule_of for rule_of in found.values() if not chosen or rule_of.ruleId in chosen]


def pairs(now: Sequence[Occurrence], then: Sequence[Occurrence]) -> list[Pair]:
    """The occurrences of one subject, in the order of raising, matched."""
    found: list[Pair] = []
    left = list(then)
    for one in now:
        match = next((other for other in left if _overlap(one, other)), None)
        if match is not None:
            left.remove(match)
        found.append(Pair(one, match))
    return found + [Pair(None, other) for other in left]


def warm_up(plant: Plant) -> int:
    """Nanoseconds of input before the time asked for, until every delay and every duration of the
    plant's rules is filled: the longest duration of a rule and its delays, an hour at least."""
    formulas = [
        tree for product in specs.rules(plant).products.values() for tree in product.formulas.values()
    ]
    in_formulas = max(map(_longest, formulas), default=0)
    return max([WARM_UP, *(_reach(rule, in_formulas) for rule in plant.rules)])


def _reach(rule: Rule, in_formulas: int) -> int:
    texts = [value for value in msgspec.structs.asdict(rule).values() if isinstance(value, str)]
    total = rule.on_delay + rule.off_delay
    if isinstance(rule, AbsenceRule):
        total += rule.for_
    if isinstance(rule, SequenceRule):
        for step in rule.steps:
            if isinstance(step, Step):
                total += step.within or 0
                texts += [text for text in (step.condition, step.not_) if text is not None]
            else:
                texts.append(step)
    return total + max([in_formulas, *(_longest_in(text) for text in texts)])


def _longest_in(text: str) -> int:
    try:
        return _longest(parse(text))
    except ExpressionError:  # a message, a name
        return 0


def _longest(tree: Expr) -> int:
    return max(
        (node.ns + node.months * MONTH for node in walk(tree) if isinstance(node, Duration)), default=0
    )


def _ended(one: Occurrence, cleared: str) -> Occurrence:
    return Occurrence(
        one.ruleId, one.subject, one.device_id, one.alarm_id, one.severity, one.shadow, one.raised, cleared
    )


def _overlap(one: Occurrence, other: Occurrence) -> bool:
    """Whether both lasted at some time; times of one form compare as texts."""
    return (other.cleared is None or one.raised <= other.cleared) and (
        one.cleared is None or other.raised <= one.cleared
    )


def _is_within(time: str, start: str | None, end: str | None) -> bool:
    return (start is None or time >= start) and (end is None or time < end)
