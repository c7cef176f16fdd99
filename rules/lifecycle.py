"""What becomes of alarms: transitions, timers and operators' actions in, events out.

Per subject there is an object only while an occurrence of it is open or an operator has shelved,
suppressed or taken it out of service; whether its rule's condition holds is the evaluators'
knowledge. What happens in which state stands in `rules.lifecycle_table`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from operators.batch import AlarmEvent, Control, Slice
from operators.spec import MILLISECOND
from rules import lifecycle_table as t
from rules.alarm import AlarmRule, Events, Subject, alarm_id_of, iso_ms, told
from rules.last_frame import LastFrame
from rules.place import RAISED, Place, Transition
from rules.spec import SEVERITY_NUMBERS
from rules.standing import Standing, Tally
from rules.timers import Clocks, Found, Timers
from rules.timers_kernels import NEVER

OVER_KEPT: Final = 1000
"""Occurrences that are over and still known by their id, the newest."""

_gravity: Final = SEVERITY_NUMBERS.__getitem__
_STANDS: Final = t.OPEN | t.SHELVED | t.SUPPRESSED | t.OUT_OF_SERVICE
GROUPS: Final = {"hub_id": "hub", "site_id": "site", "productId": "product"}
"""`over` of a group rule -> what its subjects' names begin with."""


class _Basis(msgspec.Struct, eq=False):
    """What an event is told with, besides its standing."""

    time_ns: int
    position: int
    ingest_ns: int
    actor: str | None = None
    comment: str | None = None


class Lifecycle:
    """Keeps what is open, and writes events."""

    def __init__(
        self, plant: str, shard: str, rules: Iterable[AlarmRule], products: Mapping[str, Clocks]
    ) -> None:
        self.events = Events(plant, shard)
        self.frames = LastFrame()
        self.standings: dict[str, Standing] = {}
        self.by_id: dict[str, Standing] = {}
        self.over: deque[tuple[str, str, dict[str, Any]]] = deque(maxlen=OVER_KEPT)
        self.tallies: dict[tuple[str, str], Tally] = {}  # ruleId, productId ("" of a wider group)
        self.active: dict[str, dict[str, None]] = {}  # rule, or rule/part, that suppresses -> who
        self.out: list[AlarmEvent] = []
        self.plan(rules, products)

    def plan(self, rules: Iterable[AlarmRule], products: Mapping[str, Clocks]) -> None:
        """The rules from now on, and whose devices have clocks."""
        self.rules = {(rule.ruleId, rule.part): rule for rule in rules}
        self.suppressed_by: dict[str, list[AlarmRule]] = {}
        for rule in self.rules.values():
            for name in rule.suppressors:
                self.suppressed_by.setdefault(name, []).append(rule)
        self.timers = Timers(products)

    # -- a slice

    def begin(self, item: Slice) -> None:
        """Before the transitions of a slice: their events, and those of timers that end among them, are
        appended to the slice's."""
        self.out = item.alarms
        self.frames.begin(item)
        self.timers.begin(item, lambda: self.frames.ticks(item))

    def take(self, transition: Transition) -> None:
        """The next transition; they come in the order of their places."""
        if self.timers.heap:
            self._timers(transition.place)
        self._transition(transition)

    def end(self, item: Slice) -> None:
        """After the last one."""
        if self.timers.heap:
            self._timers(None)
        self.frames.settle(item)

    def _timers(self, before: Place | None) -> None:
        while (popped := self.timers.pop(before)) is not None:
            found, timed = popped
            for standing in timed:
                assert isinstance(standing, Standing)
                self._fire(standing, found)
            self.timers.again(found)

    def _fire(self, standing: Standing, found: Found) -> None:
        """A timer of a subject is over, or its device's clock stepped: then escalation counts anew
        from that reading on."""
        if found.stepped:
            standing.base_ns = found.time_ns
            return
        due = standing.next_timer()
        basis = _Basis(due, found.position, found.ingest_ns)
        if standing.flags & t.SHELVED and standing.shelved_ns == due:
            if self._happen("shelving ends", standing, basis) is None:
                standing.flags &= ~t.SHELVED
        else:
            at = standing.next_step()
            standing.steps = at + 1
            step = standing.subject.rule.escalate[at]
            standing.severity = max(step.severity or "info", standing.severity, key=_gravity)
            self._happen("escalate", standing, basis)
        self._settle(standing, basis, found.place)

    # -- transitions

    def _transition(self, transition: Transition) -> None:
        subject, evidence = transition.subject, transition.evidence
        rule = subject.rule
        basis = _Basis(transition.time_ns, evidence.position, evidence.ingest_ns)
        standing = self.standings.get(subject.name)
        rule_of = (rule.ruleId, subject.productId or "")
        tally = self.tallies.get(rule_of)
        if tally is None:
            tally = self.tallies[rule_of] = Tally()
        if transition.kind == RAISED:
            tally.raised += 1
            if standing is None:
                standing = self.standings[subject.name] = Standing(subject)
            elif standing.flags & t.OPEN:
                self._rest(standing, subject, transition)
                self._happen("raise", standing, basis)
                self._forget_id(standing)
            self._begin(standing, transition)
            self._happen("raise", standing, basis)
        else:
            tally.cleared += 1
            if standing is None or not standing.flags & t.OPEN:
                self._suppress(subject, transition)
                return
            tally.active_ns += max(0, transition.time_ns - standing.base_ns)
            self._rest(standing, subject, transition)
            self._happen("clear", standing, basis)
        self._settle(standing, basis, transition.place)
        if self.suppressed_by:
            self._suppress(subject, transition)

    def _begin(self, standing: Standing, transition: Transition) -> None:
        """A new occurrence."""
        subject = transition.subject
        rule = subject.rule
        standing.subject = subject
        standing.severity = transition.severity or rule.severity
        standing.onset_ns = transition.onset_ns
        standing.alarm_id = alarm_id_of(subject, transition.onset_ns)
        standing.base_ns, standing.steps = transition.time_ns, 0
        flags = standing.flags & ~(t.ACKNOWLEDGED | t.LATCHED | t.OVERRULED)
        flags |= 0 if rule.to_acknowledge(standing.severity) else t.ACKNOWLEDGED
        flags |= t.LATCHED if rule.latch else 0
        standing.flags = flags | (t.OVERRULED if rule.suppressors and self._overruled(subject) else 0)
        self.by_id[standing.alarm_id] = standing
        self._rest(standing, subject, transition)

    def _rest(self, standing: Standing, subject: Subject, transition: Transition) -> None:
        """From now on the occurrence's events rest on this transition's evidence."""
        standing.subject = subject
        message = subject.filled(transition.evidence.expression, transition.lookup)
        standing.rest_on(transition.evidence, message)

    # -- suppression by other alarms

    def _overruled(self, subject: Subject) -> bool:
        return any(self._suppresses(name, subject) for name in subject.rule.suppressors)

    def _suppresses(self, name: str, subject: Subject) -> bool:
        """Whether the alarm of that name is active for the subject: on its device, or in a group
        that holds it."""
        active = self.active.get(name)
        if not active:
            return False
        if subject.who in active:
            return True
        groups = (("hub", subject.hub_id), ("site", subject.site_id), ("product", subject.productId))
        return any(f"{kind}:{key}" in active for kind, key in groups if key)

    def _suppress(self, subject: Subject, transition: Transition) -> None:
        """What this transition does to the alarms that it suppresses."""
        rule = subject.rule
        for name in rule.names:
            if name not in self.suppressed_by:
                continue
            active = self.active.setdefault(name, {})
            if transition.kind == RAISED:
                active[subject.who] = None
            elif name == rule.ruleId and rule.part and self._other_part(rule, subject):
                continue
            else:
                active.pop(subject.who, None)
            for other in self.suppressed_by[name]:
                self._tell_suppressed(other, subject, transition)

    def _other_part(self, rule: AlarmRule, subject: Subject) -> bool:
        """Whether another limit of the rule is active for the same device."""
        for name, part in self.rules:
            if name == rule.ruleId and part != rule.part:
                standing = self.standings.get(f"{subject.who}/{name}/{part}")
                if standing is not None and standing.flags & t.ACTIVE:
                    return True
        return False

    def _tell_suppressed(self, other: AlarmRule, subject: Subject, transition: Transition) -> None:
        if subject.slot >= 0:
            name = f"{subject.who}/{other.ruleId}" + (f"/{other.part}" if other.part else "")
            found = [self.standings[name]] if name in self.standings else []
        else:
            found = [one for one in self.standings.values() if one.subject.rule is other]
        for standing in found:
            basis = _Basis(transition.time_ns, transition.evidence.position, transition.evidence.ingest_ns)
            if not standing.flags & t.OPEN:
                continue
            self._happen("overrule" if self._overruled(standing.subject) else "release", standing, basis)
            self._settle(standing, basis, transition.place)

    # -- operators

    def action(self, control: Control, position: int) -> dict[str, Any]:
        """The answer to an operator's action, whose event is appended to the slice's."""
        data = control.data
        alarm_id, action = str(data.get("alarm_id")), str(data.get("action"))
        answer: dict[str, Any] = {
            "id": data.get("id"),
            "accepted": False,
            "message": "",
            "alarm_id": alarm_id,
            "subject": None,
            "state": None,
            "at_ms": control.at_ns // MILLISECOND,
        }
        standing = self.by_id.get(alarm_id)
        if standing is None:
            return answer | self._over(alarm_id)
        answer |= {"subject": standing.subject.name, "state": standing.state()}
        if action not in t.ACTIONS:
            return answer | {"message": f"no action '{action[:40]}'; known: {', '.join(t.ACTIONS)}"}
        if action == "shelve":
            until_ns, refused = _until(standing, data.get("until_ms"), control.at_ns)
            if refused:
                return answer | {"message": refused}
            standing.shelved_ns = until_ns
        why = data.get("why")
        ingest_ns = self.frames.ingest_of(position, control.at_ns)
        basis = _Basis(control.at_ns, position, ingest_ns, str(data.get("by") or ""), why or None)
        name = standing.subject.name
        refused_by = self._happen(action, standing, basis)
        if refused_by:
            return answer | {"message": f"{name} {refused_by}"}
        state = standing.state()
        self._settle(standing, _Basis(control.at_ns, position, ingest_ns), None)
        return answer | {"accepted": True, "message": _done(action, name, state), "state": state}

    def _over(self, alarm_id: str) -> dict[str, Any]:
        for known, name, state in self.over:
            if known == alarm_id:
                return {"message": f"{name}: this occurrence is closed", "subject": name, "state": state}
        return {"message": f"no open alarm '{alarm_id[:64]}': it is closed, or never was"}

    # -- rows of the table

    def _happen(self, happens: str, standing: Standing, basis: _Basis) -> str | None:
        """Apply the row of the table, with its event; what an operator is told who is refused, ""
        where the row was applied, None where there is none."""
        found = t.met(happens, standing.flags)
        if found is None:
            return None
        if found.row.refusal:
            return found.row.refusal
        standing.flags = (standing.flags & ~found.off) | found.on
        if found.row.event:
            self._event(found.row.event, standing, basis)
        return ""

    def _settle(self, standing: Standing, basis: _Basis, place: Place | None) -> None:
        """Close an occurrence with which nothing is left to do, drop a standing that says nothing,
        and take note of timers."""
        if self._happen("then", standing, basis) is not None:
            self._forget_id(standing)
        if not standing.flags & t.OPEN:
            standing.flags &= ~t.OVERRULED
        self._watch(standing, place)
        if not standing.flags & _STANDS:
            self.standings.pop(standing.subject.name, None)

    def _watch(self, standing: Standing, place: Place | None) -> None:
        runs = standing.next_timer() != NEVER
        if runs or standing.watched:
            standing.watched = runs
            self.timers.watch(standing, place)

    def _forget_id(self, standing: Standing) -> None:
        if self.by_id.pop(standing.alarm_id, None) is not None:
            self.over.append((standing.alarm_id, standing.subject.name, standing.state()))

    def _event(self, transition: str, standing: Standing, basis: _Basis) -> None:
        subject, evidence = standing.subject, standing.evidence
        assert evidence is not None
        position, ingest_ns = self.events.place(subject.name, basis.position, basis.ingest_ns)
        severity = standing.severity
        data = {
            "alarm_id": standing.alarm_id,
            "ruleId": subject.rule.ruleId,
            "rule_version": subject.rule.version,
            "productId": subject.productId,
            "device_id": subject.device_id,
            "hub_id": subject.hub_id,
            "site_id": subject.site_id,
            "customer_id": subject.customer_id,
            "transition": transition,
            "severity": severity,
            "onset_time": iso_ms(standing.onset_ns),
            "event_time": iso_ms(basis.time_ns),
            "ingest_time": iso_ms(ingest_ns),
            "actor": basis.actor,
            "comment": basis.comment,
            "state": standing.state(),
            "evidence": {
                "expression": evidence.expression,
                "values": evidence.values,
                "quality": evidence.quality,
                "position": position,
            },
            "message": told(standing.message, transition, severity),
        }
        standing.told(data)
        self.out.append(self.events.write(subject, data, ingest_ns))

    # -- the plant changes

    def close_gone(self, name: str, comment: str, at_ns: int, position: int) -> None:
        """Forget a subject whose rule was changed or removed; an open occurrence is closed."""
        standing = self.standings.pop(name, None)
        if standing is None:
            return
        basis = _Basis(at_ns, position, at_ns, None, comment)
        if self._happen("rule gone", standing, basis) is not None:
            self._forget_id(standing)
        standing.flags = 0
        self._watch(standing, None)

    def _rule(self, ruleId: str, part: str) -> AlarmRule | None:
        """An alarm of the plant; those of a reported rule have codes for parts, which stand in no file."""
        known = self.rules.get((ruleId, part))
        whole = self.rules.get((ruleId, ""))
        return replace(whole, part=part) if known is None and whole is not None else known

    def watch_all(self) -> None:
        """Take note of every timer, and of what suppresses, after a snapshot was loaded or a plant
        applied."""
        self.active = {}
        for _, standing in sorted(self.standings.items()):
            rule = self._rule(standing.subject.rule.ruleId, standing.subject.rule.part)
            if rule is not None:
                standing.subject = Subject(rule, **standing.subject.facts())
            if standing.flags & t.ACTIVE:
                for name in standing.subject.rule.names:
                    if name in self.suppressed_by:
                        self.active.setdefault(name, {})[standing.subject.who] = None
            standing.watched = False
            self._watch(standing, None)

    def suppress_anew(self, at_ns: int, position: int) -> None:
        """After a changed plant: who suppresses whom may be another now."""
        basis = _Basis(at_ns, position, at_ns)
        for standing in self.open():
            overruled = self._overruled(standing.subject)
            if overruled != (standing.flags & t.OVERRULED != 0):
                self._happen("overrule" if overruled else "release", standing, basis)
                self._settle(standing, basis, None)

    # -- looking at it, state

    def open(self) -> list[Standing]:
        """Subjects with an open occurrence, by name."""
        return [one for _, one in sorted(self.standings.items()) if one.flags & t.OPEN]

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        return {
            "counted": self.events.export(),
            "frames": self.frames.export(),
            "over": [list(one) for one in self.over],
            "tallies": [
                [*name, one.raised, one.cleared, one.active_ns] for name, one in self.tallies.items()
            ],
            "standings": [one.export() for _, one in sorted(self.standings.items())],
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take over what `export` gave under the same rules."""
        self.events.load(kept["counted"])
        self.frames.load(kept["frames"])
        self.over.extend((alarm_id, name, state) for alarm_id, name, state in kept["over"])
        self.tallies = {(name, product): Tally(*counts) for name, product, *counts in kept["tallies"]}
        for one in kept["standings"]:
            ruleId, part, _ = one["rule"]
            rule = self._rule(ruleId, part)
            if rule is None:
                continue
            standing = Standing.load(one, rule)
            self.standings[standing.subject.name] = standing
            if standing.flags & t.OPEN:
                self.by_id[standing.alarm_id] = standing
        self.watch_all()


def _until(standing: Standing, until_ms: Any, at_ns: int) -> tuple[int, str]:
    """Until when a shelving lasts, at most as long as the rule allows; or why it cannot be."""
    name, longest = standing.subject.name, standing.subject.rule.max_shelve
    if until_ms is None and longest is None:
        return 0, f"{name} can be shelved only until a time; its rule has no max_shelve"
    until_ns = at_ns + (longest or 0) if until_ms is None else int(until_ms) * MILLISECOND
    if until_ns <= at_ns:
        return 0, f"{name} cannot be shelved until {iso_ms(until_ns)}: that is past"
    return (until_ns if longest is None else min(until_ns, at_ns + longest)), ""


def _done(action: str, name: str, state: Mapping[str, Any]) -> str:
    words = {
        "ack": "is acknowledged",
        "shelve": f"is shelved until {state['shelved_until']}",
        "unshelve": "is no longer shelved",
        "suppress": "is suppressed",
        "unsuppress": "is no longer suppressed",
        "reset": "is reset",
        "out_of_service": "is out of service",
        "in_service": "is in service",
    }
    return f"{name} {words[action]}"
