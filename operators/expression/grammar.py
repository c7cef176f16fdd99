"""Text of the expression language -> tree.

    expression := and { "or" and }                      and := not { "and" not }
    not        := "not" not | comparison
    comparison := sum [ ("==" | "!=" | "<" | "<=" | ">" | ">=") sum ]
    sum        := product { ("+" | "-") product }       product := unary { ("*" | "/" | "%") unary }
    unary      := "-" unary | power                     power := atom [ "**" unary ]
    atom       := number [ unit ] | duration | text | "true" | "false" | "null" | name | call
                | "(" expression ")"
    unit       := a blank, then a UCUM code up to the next blank; one with other signs in "`"
    name       := part { "." part };  part := letter { letter | digit | "_" } | "`" any "`"

An own parser with an allow-list: what is not named here cannot be said. Length, number of nodes,
nesting and height of the tree are limited, so that hostile text is refused at once and whoever
walks the tree may recurse.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple, NoReturn, cast

from operators.document import nearest
from operators.expression.tokens import KEYWORDS, MENDS, Token, tokens
from operators.expression.tree import (
    FUNCTIONS,
    ROOTS,
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
)

DURATION_UNITS: Final = {
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
WINDOW_AGGREGATES: Final = (
    *("count", "good", "bad", "coverage", "min", "max", "mean", "last", "std", "p50", "p95", "p99"),
)
_LONGEST_DURATION_NS: Final = 1 << 62
_OTHER_NAMES: Final = {
    "mean": "; write avg(x, 5m)",
    "average": "; write avg(x, 5m)",
    "stddev": "; write std(x, 5m)",
    "ln": "; write log(x)",
    "mod": "; write a % b",
    "isnull": "; write x == null",
    "coalesce": "; write default(x, y)",
    "duration": "; write held(c, 10s) or since(c)",
}
"""What functions are called elsewhere."""


class Limits(NamedTuple):
    """How large an expression may be: characters, nodes, nested brackets, calls and prefixes, and
    the height of the tree (a chain of n additions is n high; `and` and `or` chains are flat)."""

    characters: int = 8192
    nodes: int = 2048
    nesting: int = 48
    height: int = 160


DEFAULT_LIMITS: Final = Limits()


def parse(text: str, *, limits: Limits = DEFAULT_LIMITS, window: str = "") -> Expr:
    """The tree of an expression; raises ExpressionError with the place of what is wrong.

    window: the text is about this window, so its aggregates are called by their names alone:
    `mean(tempC)` is ``window.`1m`.mean(tempC)``.
    """
    if len(text) > limits.characters:
        raise ExpressionError(
            f"an expression of {len(text)} characters; at most {limits.characters} are taken",
            limits.characters,
            limits.characters + 1,
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ExpressionError("half of a surrogate pair is no character", error.start, error.end) from None
    if not text.strip():
        raise ExpressionError("the expression is empty", 0, max(1, len(text)))
    return _Parser(tokens(text), limits, text, window).whole()


class _Part(NamedTuple):
    """What the parser has so far: a node, the height of its tree, its value if it is constant."""

    node: Expr
    height: int
    constant: float | None


class _Parser:
    def __init__(self, taken: list[Token], limits: Limits, source: str, window: str) -> None:
        self.tokens = taken
        self.limits = limits
        self.source = source
        self.window = window
        self.at = 0
        self.nodes = 0
        self.nesting = 0

    def whole(self) -> Expr:
        part = self.either()
        token = self.peek()
        if token.kind != "end":
            self.unexpected(token)
        if isinstance(part.node, Duration):
            self.stray_duration(part.node)
        return part.node

    # -- tokens

    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def found(self, *texts: str) -> Token | None:
        """The next token, taken, if it is one of these operators or keywords."""
        token = self.tokens[self.at]
        if token.text in texts and token.kind in ("op", "name"):
            self.at += 1
            return token
        return None

    def unexpected(self, token: Token) -> NoReturn:
        if token.kind == "end":
            raise ExpressionError(
                "the expression ends where a value is expected", max(0, token.start - 1), token.start
            )
        if token.kind in ("op", "name") and token.text in MENDS:
            raise ExpressionError(MENDS[token.text], token.start, token.stop)
        before = self.tokens[max(0, self.tokens.index(token) - 1)]
        if before.text in ("NOT", "Not"):
            raise ExpressionError(f"'{before.text}' is no operator; write 'not'", before.start, before.stop)
        raise ExpressionError(f"'{token.text[:40]}' is not expected here", token.start, token.stop)

    # -- building

    def built(self, node: Expr, *below: _Part, constant: float | None = None) -> _Part:
        self.nodes += 1
        height = 1 + max((part.height for part in below), default=0)
        if self.nodes > self.limits.nodes or height > self.limits.height:
            raise ExpressionError(
                f"the expression is too large; at most {self.limits.nodes} parts and a chain of "
                f"{self.limits.height} are taken",
                node.start,
                node.stop,
            )
        return _Part(node, height, constant)

    def deeper(self, token: Token) -> None:
        self.nesting += 1
        if self.nesting > self.limits.nesting:
            raise ExpressionError(f"nested deeper than {self.limits.nesting} levels", token.start, token.stop)

    def stray_duration(self, node: Duration) -> NoReturn:
        raise ExpressionError(
            f"the duration '{node.text}' can only be the last argument of a function over time",
            node.start,
            node.stop,
        )

    # -- grammar, loosest first

    def either(self) -> _Part:
        return self.logic("or")

    def both(self) -> _Part:
        return self.logic("and")

    def logic(self, op: Literal["and", "or"]) -> _Part:
        operand = self.both if op == "or" else self.negation
        first = operand()
        if not (self.peek().kind == "name" and self.peek().text == op):
            return first
        parts = [first]
        while self.found(op):
            parts.append(operand())
        node = Logic(parts[0].node.start, parts[-1].node.stop, op, tuple(self.value(part) for part in parts))
        return self.built(node, *parts)

    def negation(self) -> _Part:
        token = self.found("not")
        if token is None:
            return self.comparison()
        self.deeper(token)
        operand = self.negation()
        self.nesting -= 1
        return self.built(Not(token.start, operand.node.stop, self.value(operand)), operand)

    def comparison(self) -> _Part:
        left = self.sum()
        token = self.found("==", "!=", "<", "<=", ">", ">=")
        if token is None:
            return left
        right = self.sum()
        again = self.peek()
        if again.kind == "op" and again.text in ("==", "!=", "<", "<=", ">", ">="):
            raise ExpressionError(
                "comparisons do not chain; write 'a < b and b < c'", again.start, again.stop
            )
        op = cast(Literal["==", "!=", "<", "<=", ">", ">="], token.text)
        node = Compare(left.node.start, right.node.stop, op, self.value(left), self.value(right))
        return self.built(node, left, right)

    def sum(self) -> _Part:
        left = self.product()
        while token := self.found("+", "-"):
            left = self.binary(token, left, self.product())
        return left

    def product(self) -> _Part:
        left = self.unary()
        while token := self.found("*", "/", "%"):
            left = self.binary(token, left, self.unary())
        return left

    def binary(self, token: Token, left: _Part, right: _Part) -> _Part:
        op = cast(Literal["+", "-", "*", "/", "%", "**"], token.text)
        node = Binary(left.node.start, right.node.stop, op, self.value(left), self.value(right))
        constant = None
        if left.constant is not None and right.constant is not None:
            constant = _fold(op, left.constant, right.constant)
            if constant is None or not math.isfinite(constant):
                raise ExpressionError("this is no finite number", node.start, node.stop)
        return self.built(node, left, right, constant=constant)

    def unary(self) -> _Part:
        token = self.found("-", "+")
        if token is None:
            return self.power()
        if token.text == "+":
            raise ExpressionError("a sign '+' is not needed; remove it", token.start, token.stop)
        self.deeper(token)
        operand = self.unary()
        self.nesting -= 1
        constant = None if operand.constant is None else -operand.constant
        return self.built(
            Unary(token.start, operand.node.stop, self.value(operand)), operand, constant=constant
        )

    def power(self) -> _Part:
        left = self.atom()
        token = self.found("**")
        if token is None:
            return left
        self.deeper(token)
        right = self.unary()
        self.nesting -= 1
        return self.binary(token, left, right)

    def atom(self) -> _Part:
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "text":
            quote = token.text[0]
            value = token.text[1:-1].replace(quote * 2, quote)
            return self.built(Text(token.start, token.stop, value))
        if token.kind == "op" and token.text == "(":
            self.deeper(token)
            inner = self.either()
            self.close(token)
            self.nesting -= 1
            return inner
        if token.kind == "name" and token.text in KEYWORDS:
            if token.text == "null":
                return self.built(Null(token.start, token.stop))
            if token.text in ("true", "false"):
                return self.built(Bool(token.start, token.stop, token.text == "true"))
        elif token.kind in ("name", "quoted"):
            return self.name(token)
        return self.unexpected(token)

    def close(self, opening: Token) -> Token:
        token = self.peek()
        if token.kind == "op" and token.text == ")":
            return self.take()
        if token.kind == "end":
            raise ExpressionError("this '(' is never closed", opening.start, opening.stop)
        return self.unexpected(token)

    def number(self, token: Token) -> _Part:
        unit = self.peek()
        if unit.kind == "name" and unit.start == token.stop and token.text[:2].lower() != "0x":
            return self.duration(token, self.take())
        if len(token.text) > 400:
            raise ExpressionError("a number of more than 400 characters", token.start, token.stop)
        if token.text[:2].lower() == "0x":
            whole = int(token.text, 16)
            value = float(whole) if whole < 1 << 1000 else math.inf
        else:
            value = float(token.text)
        if not math.isfinite(value):
            raise ExpressionError("the number is too large", token.start, token.stop)
        if unit.kind == "unit" or (unit.kind == "quoted" and len(unit.text) > 2):
            self.take()
            code = unit.text.strip("`")
            return self.built(Number(token.start, unit.stop, value, token.text, code))
        return self.built(Number(token.start, token.stop, value, token.text), constant=value)

    def duration(self, token: Token, unit: Token) -> _Part:
        text = token.text + unit.text
        if unit.text == "mo":
            if not token.text.isdigit() or len(token.text) > 4:
                raise ExpressionError(f"'{text[:40]}' is no number of months", token.start, unit.stop)
            return self.built(Duration(token.start, unit.stop, 0, int(token.text), text))
        scale = DURATION_UNITS.get(unit.text)
        if scale is None:
            raise ExpressionError(
                f"'{text[:40]}' is no duration (those end in ms, s, m, h, d or mo); a unit stands behind a "
                f"blank: '{token.text[:20]} {unit.text[:20]}'",
                token.start,
                unit.stop,
            )
        ns = float(token.text) * scale
        if not 0 < ns < _LONGEST_DURATION_NS:
            raise ExpressionError(f"'{text[:40]}' is no usable duration", token.start, unit.stop)
        return self.built(Duration(token.start, unit.stop, round(ns), 0, text))

    def part(self, token: Token) -> str:
        if token.kind == "name":
            return token.text
        if token.kind == "quoted":
            if len(token.text) == 2:
                raise ExpressionError("the name between the backticks is empty", token.start, token.stop)
            return token.text[1:-1]
        if token.kind == "end":
            raise ExpressionError("a name is expected after the '.'", token.start - 1, token.start)
        raise ExpressionError("a name is expected after the '.'", token.start, token.stop)

    def name(self, first: Token) -> _Part:
        parts = [self.part(first)]
        stop = first.stop
        while self.peek().text == "." and self.peek().kind == "op":
            self.take()
            token = self.take()
            parts.append(self.part(token))
            stop = token.stop
        text = self.source[first.start : stop]
        opening = self.peek()
        called = opening.kind == "op" and opening.text == "("
        if len(parts) == 1:
            if called and first.kind == "name":
                return self.call(parts[0], first, self.take(), None)
            return self.built(Name(first.start, stop, "", (parts[0],), text))
        root = parts[0]
        if first.kind == "quoted" or root not in ROOTS:
            mend = nearest(root, ROOTS) or "; a name with a dot stands whole in backticks"
            raise ExpressionError(
                f"nothing is called '{root[:40]}.'{mend}",
                first.start,
                stop,
            )
        if called:
            if root != "window" or len(parts) != 3:
                raise ExpressionError(f"'{text[:60]}' is no function", first.start, stop)
            target = Name(first.start, stop, root, (parts[1],), text)
            return self.call(parts[2], first, self.take(), target)
        if root == "alarm":
            raise ExpressionError(
                "alarms stand in AAS mappings alone; what one alarm means for another is suppressed_by",
                first.start,
                stop,
            )
        if len(parts) != 2:
            raise ExpressionError(
                f"'{text[:60]}' has too many dots; a name with a dot stands whole in backticks",
                first.start,
                stop,
            )
        return self.built(Name(first.start, stop, root, (parts[1],), text))

    def call(self, function: str, first: Token, opening: Token, target: Name | None) -> _Part:
        own = function in WINDOW_AGGREGATES and self.window != ""
        if target is None and function not in FUNCTIONS and not own:
            raise ExpressionError(
                f"no function '{function[:40]}'{_OTHER_NAMES.get(function) or nearest(function, FUNCTIONS)}",
                first.start,
                first.stop,
            )
        if target is not None and function not in WINDOW_AGGREGATES:
            raise ExpressionError(
                f"a window has no '{function[:40]}'{nearest(function, WINDOW_AGGREGATES)}",
                first.start,
                target.stop,
            )
        self.deeper(opening)
        arguments: list[_Part] = []
        if self.peek().kind == "op" and self.peek().text == ")":
            end = self.take()
        else:
            arguments.append(self.either())
            while self.found(","):
                arguments.append(self.either())
            end = self.close(opening)
        self.nesting -= 1
        nodes = tuple(part.node for part in arguments)
        if own and target is None and (len(nodes) == 1 or function not in FUNCTIONS):
            target = Name(first.start, first.stop, "window", (self.window,), function)
        self.check_arguments(function, nodes, first, end, target)
        return self.built(Call(first.start, end.stop, function, nodes, target), *arguments)

    def check_arguments(
        self, function: str, nodes: tuple[Expr, ...], first: Token, end: Token, target: Name | None
    ) -> None:
        least, most, span, _ = FUNCTIONS[function] if target is None else (1, 1, "never", False)
        if not least <= len(nodes) <= most:
            if least == most:
                wanted = f"{least} argument" + ("s" if least > 1 else "")
            elif most == 32:
                wanted = f"at least {least} arguments"
            else:
                wanted = f"{least} to {most} arguments"
            raise ExpressionError(f"{function}() takes {wanted}, not {len(nodes)}", first.start, end.stop)
        last = nodes[-1]
        for node in nodes[:-1]:
            if isinstance(node, Duration):
                self.stray_duration(node)
        if isinstance(last, Duration) and (span == "never" or len(nodes) != 2):
            self.stray_duration(last)
        if span == "always" and not isinstance(last, Duration):
            raise ExpressionError(
                f"{function}() takes a duration such as 5m as its last argument", last.start, last.stop
            )

    def value(self, part: _Part) -> Expr:
        """The part's node, refused if it is a duration: those are no values."""
        if isinstance(part.node, Duration):
            self.stray_duration(part.node)
        return part.node


def _fold(op: str, left: float, right: float) -> float | None:
    """The value of an operation on constants; None where it has none."""
    try:
        if op == "+":
            return left + right
        if op == "-":
            return left - right
        if op == "*":
            return left * right
        if op == "/":
            return left / right
        if op == "%":
            return left % right
        return math.pow(left, right)
    except (ArithmeticError, ValueError):
        return None
