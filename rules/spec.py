"""What a rule file says, kind by kind, and what the rules stage is built from."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, TypeAlias

import msgspec

from operators.attributes import Attributes
from operators.expression.program import MetricType
from operators.expression.tree import Expr
from operators.spec import MINUTE, Duration, Expression

Severity = Literal["critical", "high", "medium", "low", "info"]
SEVERITY_NUMBERS = {"critical": 900, "high": 700, "medium": 500, "low": 300, "info": 100}
"""OPC UA severities (OPC 10000-5, section 6.4.2: 1 to 1000)."""

LIMITS: Final = ("HH", "H", "LL", "L")
"""Limits of a rule, each before the one that it suppresses."""


class Schedule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Windows in event time: each begins where `cron` says and lasts `for`, counted in elapsed time."""

    cron: str
    for_: Duration = msgspec.field(name="for")
    timezone: str | None = None  # default: the plant's


class Escalation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One step: so long after the event time of `raised`, if the occurrence is still open."""

    after: Duration
    unless: Literal["acknowledged"] | None = None
    severity: Severity | None = None
    notify: str | None = None  # kept; nobody is notified in this version


class Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """The keys that every kind of rule has. Which of them do not fit a kind stands in `UNFIT`."""

    UNFIT: ClassVar[tuple[str, ...]] = ()

    ruleId: str
    productId: str | list[str]
    clear_condition: Expression | None = None
    on_delay: Duration = 0
    off_delay: Duration = 0
    deadband: float | None = None
    where: Expression | None = None
    schedule: Schedule | list[Schedule] | None = None
    suppressed_by: str | list[str] | None = None
    latch: bool = False
    acknowledge: Literal["required", "none"] | None = None  # default: required down to medium
    max_shelve: Duration | None = None
    escalate: list[Escalation] = msgspec.field(default_factory=list)
    autoAction: str | None = None
    message: str | None = None
    mode: Literal["live", "shadow"] = "live"
    version: str = ""  # first 12 hex digits of SHA-256 of the canonical JSON; filled in by the reader

    @property
    def type(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def products(self) -> tuple[str, ...]:
        return (self.productId,) if isinstance(self.productId, str) else tuple(self.productId)

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        if isinstance(self.schedule, list):
            return tuple(self.schedule)
        return () if self.schedule is None else (self.schedule,)

    @property
    def suppressors(self) -> tuple[str, ...]:
        if isinstance(self.suppressed_by, list):
            return tuple(self.suppressed_by)
        return () if self.suppressed_by is None else (self.suppressed_by,)

    @property
    def conditions(self) -> dict[str, str]:
        """What raises, as expressions over one device's readings: limit ("" where the rule has none)
        -> text. Empty for kinds that raise by something else."""
        return {}

    @property
    def parts(self) -> tuple[str, ...]:
        """What each alarm of the rule is about: its limits, the one metric; "" where it has one alarm."""
        return tuple(self.conditions) or ("",)

    def severity_of(self, part: str = "") -> Severity:
        """The severity of a new occurrence; `part` is the limit."""
        raise NotImplementedError


class _OfOneSeverity(Rule, kw_only=True):
    severity: Severity

    def severity_of(self, part: str = "") -> Severity:
        return self.severity


class ThresholdRule(_OfOneSeverity, kw_only=True, tag="threshold"):
    """A condition over one device's readings."""

    condition: Expression

    @property
    def conditions(self) -> dict[str, str]:
        return {"": self.condition}


class RateRule(ThresholdRule, kw_only=True, tag="rate"):
    """A threshold under another name, for conditions with `rate` or `delta`."""


class WindowRule(ThresholdRule, kw_only=True, tag="window"):
    """A threshold under another name, for conditions with `avg`, `max` and so on over a duration."""


class Limits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Bounds: a number, or an expression such as `param.high`. Above HH and H, below L and LL raises."""

    HH: float | Expression | None = None
    H: float | Expression | None = None
    L: float | Expression | None = None
    LL: float | Expression | None = None


class LimitSeverity(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    HH: Severity | None = None
    H: Severity | None = None
    L: Severity | None = None
    LL: Severity | None = None


class LimitRule(Rule, kw_only=True, tag="limit"):
    """Up to four limits of one value; HH suppresses H, and LL suppresses L."""

    UNFIT = ("clear_condition",)

    of: Expression
    limits: Limits
    severity: Severity | LimitSeverity

    @property
    def conditions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in LIMITS:
            bound = getattr(self.limits, name)
            if bound is not None:
                sign = ">" if name in ("HH", "H") else "<"
                found[name] = f"{self.of} {sign} {_number(bound) if isinstance(bound, float) else bound}"
        return found

    def severity_of(self, part: str = "") -> Severity:
        if isinstance(self.severity, LimitSeverity):
            told: Severity | None = getattr(self.severity, part, None)
            return "medium" if told is None else told
        return self.severity


class Step(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One step of a sequence: a condition, or one that must not come, within a time after the step before."""

    condition: Expression | None = None
    not_: Expression | None = msgspec.field(name="not", default=None)
    within: Duration | None = None


class SequenceRule(_OfOneSeverity, kw_only=True, tag="sequence"):
    """Steps that one device takes one after the other."""

    steps: list[Expression | Step]


class AbsenceRule(_OfOneSeverity, kw_only=True, tag="absence"):
    """Silence of a device, or of one metric of it."""

    UNFIT = ("clear_condition", "on_delay", "deadband")

    for_: Duration = msgspec.field(name="for")
    of: Expression | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.of or "",)


class GroupRule(_OfOneSeverity, kw_only=True, tag="group"):
    """What holds for many devices of a hub, a site or a product at once."""

    UNFIT = ("clear_condition", "deadband")

    over: Literal["hub_id", "site_id", "productId"]
    condition: Expression
    when: Expression


class SeverityMap(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The severity that a device reports: a path in its payload, and what its values mean."""

    from_: str = msgspec.field(name="from")
    map: dict[str, Severity]


class ReportedRule(Rule, kw_only=True, tag="reported"):
    """An alarm that the device raises itself."""

    UNFIT = ("clear_condition", "deadband")

    role: str
    code: str
    raised: Expression
    severity: Severity | SeverityMap

    def severity_of(self, part: str = "") -> Severity:
        return self.severity if isinstance(self.severity, str) else "medium"


AnyRule: TypeAlias = (
    ThresholdRule | RateRule | WindowRule | LimitRule | SequenceRule | AbsenceRule | GroupRule | ReportedRule
)

RULE_TYPES: Final[dict[str, type[Rule]]] = {
    "threshold": ThresholdRule,
    "rate": RateRule,
    "window": WindowRule,
    "limit": LimitRule,
    "sequence": SequenceRule,
    "absence": AbsenceRule,
    "group": GroupRule,
    "reported": ReportedRule,
}


def _number(bound: float) -> str:
    """A bound as a person wrote it: a whole number without a fraction."""
    return str(int(bound)) if bound == int(bound) and abs(bound) < 1e15 else repr(bound)


@dataclass(slots=True, eq=False)
class RuleProduct:
    """What rules need to know of a product.

    metrics: name -> type, in file order. params: the defaults of `params:`; a column of
    devices.csv of the same name overrides them by device. stale_after: nanoseconds after which a
    held value is unknown (3 x `expected_every`), 0 = never. live_within: nanoseconds; a reading older
    than that against its ingest time is historical. units: metric -> UCUM unit, of those
    that declare one. formulas: formulaId -> its tree, of those that a condition may name. values:
    text metric -> the texts that its contract allows, of those that state them.
    """

    productId: str
    metrics: Mapping[str, MetricType]
    params: Mapping[str, float | str] = field(default_factory=dict)
    stale_after: int = 0
    live_within: int = 15 * MINUTE
    units: Mapping[str, str] = field(default_factory=dict)
    formulas: Mapping[str, Expr] = field(default_factory=dict)
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class RulesSpec:
    """What the rules stage is built from.

    attributes: the rows of devices.csv by device_id, every column a text; columns: its header. timezone: of
    schedules that name none. joined: the same rows as of event time, with those of sites and customers.
    """

    plant: str
    products: Mapping[str, RuleProduct]
    rules: Sequence[Rule]
    attributes: MutableMapping[str, Mapping[str, str]] = field(default_factory=dict)
    shard: str = "0"
    timezone: str = "UTC"
    columns: Sequence[str] = ()
    joined: Attributes = field(default_factory=lambda: Attributes({}))

    def __post_init__(self) -> None:
        if not self.joined.tables:
            self.joined = Attributes.of_devices(self.attributes)
