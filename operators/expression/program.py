"""Trees -> one column program: the table that `operators.expression.machine` interprets.

All conditions of a product become one program. Equal sub-expressions are computed once and
constants are folded. Nothing is compiled: a program is a few small arrays.

Types are checked here: a number, a boolean and a text are never mixed, except that `true` is 1
and `false` is 0 in arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from operators.document import nearest
from operators.expression import kernels as m
from operators.expression.canonical import canonical_text
from operators.expression.formulas import inlined
from operators.expression.machine import constant as constant_of
from operators.expression.registers import COLUMN, CONSTANT, FOLD, Column, Instruction, Program, allocate
from operators.expression.tree import (
    Binary,
    Bool,
    Call,
    Compare,
    Duration,
    Expr,
    ExpressionError,
    Logic,
    Name,
    Not,
    Null,
    Number,
    Text,
    Unary,
    is_temporal,
    walk,
)
from operators.expression.units import has_literal_units, in_units
from operators.text import text_code

Kind = Literal["number", "bool", "text", "null"]
MetricType = Literal["number", "integer", "boolean", "string"]
_KIND_WORDS: Final = {"number": "a number", "bool": "a condition", "text": "a text", "null": "null"}


@dataclass(slots=True, eq=False)
class Scope:
    """What the names of an expression may be.

    owner: the product's name, for messages. metrics: name -> type. params: name -> its value
    where all devices have the same, else None (then its column differs by device);
    text_params: those whose value is a text. attributes: columns of devices.csv. units: metric ->
    its UCUM unit. formulas: formulaId -> its tree, for those that may be named. window: the window
    whose aggregates may be named, and those alone: metric -> aggregates. values: text metric -> the
    texts that its contract allows.
    """

    owner: str
    metrics: Mapping[str, MetricType]
    params: Mapping[str, float | str | None] = field(default_factory=dict)
    text_params: Collection[str] = ()
    attributes: Collection[str] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    formulas: Mapping[str, Expr] = field(default_factory=dict)
    window: str = ""
    aggregates: Mapping[str, Collection[str]] = field(default_factory=dict)
    values: Mapping[str, Collection[str]] = field(default_factory=dict)


def metrics_of(expressions: Iterable[Expr]) -> tuple[str, ...]:
    """The metrics that the expressions name, each once, in the order of the text."""
    found = {
        node.parts[0]: None
        for expression in expressions
        for node in walk(expression)
        if isinstance(node, Name) and node.root in ("", "metrics")
    }
    return tuple(found)


MAX_SAMPLES: Final = 4096
"""The most samples that a function over a duration keeps, where a rule says nothing else."""


def resolved(expression: Expr, scope: Scope) -> Expr:
    """The expression with formulas put in place and literals converted to the units of what they
    are set against; raises ExpressionError. Nothing is left to do for a resolved one."""
    expression = inlined(expression, scope.formulas, scope.owner)
    return in_units(expression, scope.units) if has_literal_units(expression) else expression


def compile_conditions(
    expressions: Sequence[Expr],
    scope: Scope,
    first: Sequence[Column] = (),
    *,
    values: Sequence[Expr] = (),
    max_samples: Sequence[int] = (),
) -> Program:
    """One program whose results are the expressions' truth; raises ExpressionError.

    Every expression must be a condition (a comparison, logic of such, or a boolean). first: input
    columns that stand in the first rows, whether an expression names them or not. values:
    expressions of any kind that are stored as numbers (truth as 1 and 0, a text as its code).
    max_samples: for each condition, then each value; default MAX_SAMPLES.
    """
    builder = _Builder(scope)
    builder.columns.update({column: row for row, column in enumerate(first)})
    most = [*max_samples, *([MAX_SAMPLES] * (len(expressions) + len(values) - len(max_samples)))]
    results, numbers = [], []
    for at, expression in enumerate(expressions):
        builder.max_samples = most[at]
        results.append(builder.condition(resolved(expression, scope)))
    for at, expression in enumerate(values):
        builder.max_samples = most[len(expressions) + at]
        numbers.append(builder.as_number(builder.build(resolved(expression, scope))))
    return allocate(
        builder.instructions,
        tuple(builder.columns),
        [value.id for value in results],
        [value.id for value in numbers],
        builder.texts,
    )


def check_condition(expression: Expr, scope: Scope) -> list[ExpressionError]:
    """Every unknown name of a condition; if there is none, the first clash of types or of units."""
    return _problems(expression, scope, condition=True)


def check_value(expression: Expr, scope: Scope) -> list[ExpressionError]:
    """The same for an expression of any kind."""
    return _problems(expression, scope, condition=False)


def _problems(expression: Expr, scope: Scope, *, condition: bool) -> list[ExpressionError]:
    problems = []
    compared: set[int] = set()  # where names begin that stand beside == or !=
    for node in () if scope.window else walk(expression):
        if isinstance(node, Compare) and node.op in ("==", "!="):
            compared.update((node.left.start, node.right.start))
        if isinstance(node, Name):
            try:
                if node.root == "formula":
                    inlined(node, scope.formulas, scope.owner)
                else:
                    _Builder(scope).name(node)
            except ExpressionError as error:
                if node.root == "" and node.start in compared and ";" not in error.message:
                    told = f"{error.message}; a text stands in quotes: '{node.parts[0][:40]}'"
                    error = ExpressionError(told, node.start, node.stop)
                problems.append(error)
    if not problems:
        try:
            whole = inlined(expression, scope.formulas, scope.owner)
            if condition:
                compile_conditions([whole], scope)
            else:
                compile_conditions([], scope, values=[whole])
            if scope.units:
                in_units(whole, scope.units)
        except ExpressionError as error:
            problems.append(error)
    return problems


def kind_of(expression: Expr, scope: Scope) -> Kind:
    """What kind of value a sound expression has."""
    return _Builder(scope).build(resolved(expression, scope)).kind


def _meant(name: str, metrics: Mapping[str, MetricType]) -> str:
    """The mend for a name that is no metric: another one, or how to write what looks like a name."""
    if name.lower() in ("true", "false"):
        return f"; write {name.lower()}"
    if name.lower() in ("none", "nan", "nil"):
        return "; write null"
    if name in ("param", "device", "formula"):
        return f"; write {name}.NAME"
    return nearest(name, metrics)


class _Value(NamedTuple):
    kind: Kind
    id: int  # of the instruction that gives it
    constant: float | None = None  # of a number or text that is the same everywhere; NaN = unknown


_ARITHMETIC: Final = {"+": m.ADD, "-": m.SUB, "*": m.MUL, "/": m.DIV, "%": m.MOD, "**": m.POW}
_UNARY: Final = {
    "abs": m.ABS,
    "floor": m.FLOOR,
    "ceil": m.CEIL,
    "sqrt": m.SQRT,
    "exp": m.EXP,
    "log": m.LOG,
    "log10": m.LOG10,
    "popcount": m.POPCOUNT,
}
_BINARY: Final = {
    "pow": m.POW,
    "bitand": m.BITAND,
    "bitor": m.BITOR,
    "bitxor": m.BITXOR,
    "shl": m.SHL,
    "shr": m.SHR,
}
_COMPARE_COLUMNS: Final = {"<": (m.LT, False), "<=": (m.LE, False), ">": (m.LT, True), ">=": (m.LE, True)}
_COMPARE_CONSTANT: Final = {"<": m.LTC, "<=": m.LEC, ">": m.GTC, ">=": m.GEC, "==": m.EQC, "!=": m.NEC}
_OVER_TIME: Final = {"mean": "avg", **{name: name for name in ("min", "max", "std", "count")}}
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class _Builder:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.instructions: list[Instruction] = []
        self.known: dict[tuple[int, tuple[int, ...], str, int], int] = {}
        self.columns: dict[Column, int] = {}
        self.max_samples = MAX_SAMPLES
        self.texts: dict[int, list[str]] = {}  # of operations over the past

    # -- instructions

    def emit(
        self,
        op: int,
        operands: tuple[int, ...],
        *,
        trit: bool = False,
        constant: float = 0.0,
        column: int = -1,
    ) -> int:
        key = (op, operands, float(constant).hex(), column)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = len(self.instructions)
            self.instructions.append(Instruction(op, operands, trit, constant, column))
        return found

    def number(self, constant: float, kind: Kind = "number") -> _Value:
        if not math.isfinite(constant):
            constant = math.nan
        return _Value(kind, self.emit(CONSTANT, (), constant=constant), constant)

    def trit(self, op: int, *operands: int, constant: float = 0.0) -> _Value:
        return _Value("bool", self.emit(op, operands, trit=True, constant=constant))

    def unknown(self, kind: Kind) -> _Value:
        return self.trit(m.FILL, constant=0.0) if kind == "bool" else self.number(math.nan, kind)

    def column(self, root: str, name: str, kind: Kind) -> _Value:
        row = self.columns.setdefault(Column(root, name), len(self.columns))
        return _Value(kind, self.emit(COLUMN, (), column=row))

    # -- types

    def condition(self, node: Expr) -> _Value:
        value = self.build(node)
        if value.kind == "null":
            return self.unknown("bool")
        if value.kind != "bool":
            raise ExpressionError(
                f"this is {_KIND_WORDS[value.kind]} where a condition is expected; compare it with something",
                node.start,
                node.stop,
            )
        return value

    def numeric(self, node: Expr) -> _Value:
        """A number; a condition counts as 1 or 0."""
        value = self.build(node)
        if value.kind == "text":
            raise ExpressionError("this is a text where a number is expected", node.start, node.stop)
        return self.as_number(value)

    def as_number(self, value: _Value) -> _Value:
        if value.kind == "null":
            return self.number(math.nan)
        if value.kind == "bool":
            return _Value("number", self.emit(m.FROM_TRIT, (value.id,)))
        return value

    def alike(self, left: Expr, right: Expr) -> tuple[_Value, _Value]:
        """Two values of one kind: of texts, of conditions, else of numbers."""
        first, second = self.build(left), self.build(right)
        kinds = {first.kind, second.kind} - {"null"}
        if "text" in kinds and len(kinds) > 1:
            wrong = right if first.kind == "text" else left
            other = second if first.kind == "text" else first
            raise ExpressionError(
                f"this is {_KIND_WORDS[other.kind]} where a text is expected", wrong.start, wrong.stop
            )
        if kinds == {"text"} or kinds == {"bool"}:
            kind: Kind = "text" if kinds == {"text"} else "bool"
            return (
                self.unknown(kind) if first.kind == "null" else first,
                self.unknown(kind) if second.kind == "null" else second,
            )
        return self.as_number(first), self.as_number(second)

    # -- nodes

    def build(self, node: Expr) -> _Value:
        if isinstance(node, Number):
            return self.number(node.value)
        if isinstance(node, Text):
            return self.number(float(text_code(node.value)), "text")
        if isinstance(node, Bool):
            return self.trit(m.FILL, constant=1.0 if node.value else 2.0)
        if isinstance(node, Null):
            return _Value("null", -1)
        if isinstance(node, Name):
            return self.name(node)
        if isinstance(node, Unary):
            operand = self.numeric(node.operand)
            if operand.constant is not None:
                return self.number(-operand.constant)
            return _Value("number", self.emit(m.NEG, (operand.id,)))
        if isinstance(node, Binary):
            return self.arithmetic(_ARITHMETIC[node.op], self.numeric(node.left), self.numeric(node.right))
        if isinstance(node, Compare):
            return self.compare(node)
        if isinstance(node, Not):
            return self.trit(m.NOT, self.condition(node.operand).id)
        if isinstance(node, Logic):
            op = m.AND if node.op == "and" else m.OR
            result = self.condition(node.operands[0])
            for further in node.operands[1:]:
                result = self.trit(op, result.id, self.condition(further).id)
            return result
        if isinstance(node, Call):
            return self.call(node)
        raise ExpressionError(f"the duration '{node.text}' is no value", node.start, node.stop)

    def arithmetic(self, op: int, left: _Value, right: _Value) -> _Value:
        if left.constant is not None and right.constant is not None:
            return self.number(constant_of(op, left.constant, right.constant))
        return _Value("number", self.emit(op, (left.id, right.id)))

    def name(self, node: Name) -> _Value:
        name, scope = node.parts[0], self.scope
        if node.root in ("", "metrics"):
            if scope.window:
                raise ExpressionError(
                    f"a formula over {scope.window} takes aggregates, e.g. mean({name})",
                    node.start,
                    node.stop,
                )
            kind = scope.metrics.get(name)
            if kind is None:
                raise ExpressionError(
                    f"no metric '{name}' in {scope.owner}{_meant(name, scope.metrics)}",
                    node.start,
                    node.stop,
                )
            if kind == "boolean":
                return self.trit(m.NEC, self.column("metrics", name, "number").id, constant=0.0)
            return self.column("metrics", name, "text" if kind == "string" else "number")
        if node.root == "param":
            return self.param(name, node)
        if node.root == "device":
            if name not in scope.attributes:
                raise ExpressionError(
                    f"no column '{name}' in devices.csv{nearest(name, scope.attributes)}",
                    node.start,
                    node.stop,
                )
            return self.column("device", name, "text")
        if node.root == "frame":
            raise ExpressionError(
                f"'{node.text}' is known only while a frame is decoded", node.start, node.stop
            )
        if node.root == "window":  # a formula over it
            raise ExpressionError(
                f"this formula has a value only when its window of {name} closes; here write avg(x, {name}) "
                "and the like",
                node.start,
                node.stop,
            )
        raise ExpressionError(f"'{node.root}.' stands in AAS mappings alone", node.start, node.stop)

    def param(self, name: str, node: Name) -> _Value:
        scope = self.scope
        if name not in scope.params:
            raise ExpressionError(
                f"no parameter '{name}' in {scope.owner}{nearest(name, scope.params)}", node.start, node.stop
            )
        kind: Kind = "text" if name in scope.text_params else "number"
        value = scope.params[name]
        if value is None:
            return self.column("param", name, kind)
        if kind == "text":
            return self.number(float(text_code(str(value))), "text")
        return self.number(float(value))

    def compare(self, node: Compare) -> _Value:
        left, right = node.left, node.right
        if node.op in ("==", "!=") and (isinstance(left, Null) or isinstance(right, Null)):
            value = self.build(right if isinstance(left, Null) else left)
            test = self.trit(m.IS_NULL, self.as_number(value).id)
            return test if node.op == "==" else self.trit(m.NOT, test.id)
        first, second = self.alike(left, right)
        if node.op not in ("==", "!=") and "text" in (first.kind, second.kind):
            raise ExpressionError(f"texts have no order; '{node.op}' takes numbers", node.start, node.stop)
        first, second = (
            (first, second) if first.kind == "text" else (self.as_number(first), self.as_number(second))
        )
        op: str = node.op
        if first.constant is not None and second.constant is None:
            first, second, op = second, first, _MIRRORED[op]
        if second.constant is not None:
            return self.trit(_COMPARE_CONSTANT[op], first.id, constant=second.constant)
        if op in ("==", "!="):
            return self.trit(m.EQ if op == "==" else m.NE, first.id, second.id)
        code, swapped = _COMPARE_COLUMNS[op]
        return self.trit(code, second.id, first.id) if swapped else self.trit(code, first.id, second.id)

    def call(self, node: Call) -> _Value:
        if node.target is not None:
            if node.target.parts[0] == self.scope.window:
                return self.aggregate(node)
            raise ExpressionError(
                "the results of windows stand in AAS mappings alone; write "
                f"{_OVER_TIME.get(node.function, 'avg')}(x, 1m) for a value over the last minute",
                node.start,
                node.stop,
            )
        if is_temporal(node):
            if self.scope.window:
                raise ExpressionError(
                    f"a formula over {self.scope.window} sees its window alone, not the past",
                    node.start,
                    node.stop,
                )
            return self.past(node)
        function, arguments = node.function, node.arguments
        if function == "if":
            return self.choice(node)
        if function == "default":
            first, second = self.alike(*arguments)
            if first.kind == "bool":
                return self.trit(m.DEFAULT_TRIT, first.id, second.id)
            return _Value(first.kind, self.emit(m.DEFAULT, (first.id, second.id)))
        if function == "round":
            return self.rounding(node)
        values = [self.numeric(argument) for argument in arguments]
        if function in _UNARY:
            return self.arithmetic(_UNARY[function], values[0], values[0])
        if function in _BINARY:
            return self.arithmetic(_BINARY[function], values[0], values[1])
        if function == "clamp":
            raised = self.arithmetic(m.MAX, values[0], values[1])
            return self.arithmetic(m.MIN, raised, values[2])
        result = values[0]
        for value in values[1:]:
            result = self.arithmetic(m.MIN if function == "min" else m.MAX, result, value)
        return result

    def aggregate(self, node: Call) -> _Value:
        """An aggregate of the window that the expression is about."""
        inner, scope = node.arguments[0], self.scope
        if not isinstance(inner, Name) or inner.root not in ("", "metrics"):
            raise ExpressionError(
                f"{node.function}() of a window takes the name of a metric", inner.start, inner.stop
            )
        name = inner.parts[0]
        if name not in scope.aggregates:
            raise ExpressionError(
                f"window '{scope.window}' does not aggregate '{name}'{nearest(name, scope.aggregates)}",
                inner.start,
                inner.stop,
            )
        if node.function not in scope.aggregates[name]:
            raise ExpressionError(
                f"window '{scope.window}' has no '{node.function}'"
                f"{nearest(node.function, scope.aggregates[name])}",
                node.start,
                node.stop,
            )
        return self.column("window", f"{node.function} {name}", "number")

    def past(self, node: Call) -> _Value:
        """A function over the device's own past."""
        function, inner = node.function, node.arguments[0]
        if function in ("since", "held"):
            test = self.condition(inner)
            if function == "since":
                return _Value("number", self.remember(m.SINCE, test, "since", inner))
            duration = self.duration(node)
            told = f"held {duration}ns"
            return _Value("bool", self.remember(m.HELD, test, told, inner, constant=duration, trit=True))
        value = self.build(inner) if function in ("prev", "changed", "count") else None
        if value is None or value.kind == "null":
            value = self.numeric(inner)
        number = self.as_number(value)
        if function == "rate":
            return _Value("number", self.remember(m.RATE, number, "rate", inner))
        if function in ("prev", "changed", "delta"):
            before = self.remember(m.PREV, number, "prev", inner)
            if function == "delta":
                return _Value("number", self.emit(m.SUB, (number.id, before)))
            if function == "changed":
                return self.trit(m.NE, number.id, before)
            if value.kind == "bool":
                return self.trit(m.NEC, before, constant=0.0)
            return _Value(value.kind, before)
        duration = self.duration(node)
        told = f"samples {duration}ns {self.max_samples}"
        span = self.remember(m.SPAN, number, told, inner, constant=duration, column=self.max_samples)
        return _Value("number", self.emit(FOLD, (span,), column=m.FOLDS.index(function)))

    def remember(
        self,
        op: int,
        value: _Value,
        told: str,
        inner: Expr,
        *,
        constant: float = 0.0,
        column: int = -1,
        trit: bool = False,
    ) -> int:
        """The operation, and the text under which its state is kept over a change of the plant."""
        found = self.emit(op, (value.id,), trit=trit, constant=constant, column=column)
        text = f"{told}: {canonical_text(inner, self.typed)}"
        texts = self.texts.setdefault(found, [])
        if text not in texts:
            texts.append(text)
        return found

    def typed(self, name: Name) -> str:
        """A name with its type: a metric that is another type now is another metric."""
        part = ".".join(name.parts)
        if name.root in ("", "metrics"):
            return f"`{part}`:{self.scope.metrics[part]}"
        return f"{name.root}.`{part}`"

    def duration(self, node: Call) -> int:
        last = node.arguments[-1]
        assert isinstance(last, Duration)
        if last.months:
            raise ExpressionError(
                f"a month has no fixed length; write days, e.g. {30 * last.months}d", last.start, last.stop
            )
        return last.ns

    def choice(self, node: Call) -> _Value:
        test = self.condition(node.arguments[0])
        first, second = self.alike(node.arguments[1], node.arguments[2])
        if first.kind == "bool":
            return self.trit(m.IF_TRIT, test.id, first.id, second.id)
        return _Value(first.kind, self.emit(m.IF, (test.id, first.id, second.id)))

    def rounding(self, node: Call) -> _Value:
        value = self.numeric(node.arguments[0])
        if len(node.arguments) == 1:
            return self.arithmetic(m.ROUND, value, self.number(0.0))
        digits = node.arguments[1]
        if not isinstance(digits, Number) or digits.value not in range(16):
            raise ExpressionError(
                "round() takes a whole number from 0 to 15 as its number of digits", digits.start, digits.stop
            )
        return self.arithmetic(m.ROUND, value, self.number(digits.value))
