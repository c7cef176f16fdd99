"""The message template of a rule: `{device_id}: {tempC:.1f} Cel, above {param.tempHigh}`.

What stands in braces is a name of an allow-list, and after a colon a number format of a few
characters; nothing is evaluated. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from operators.document import nearest
from operators.expression.tree import ExpressionError

WORDS: Final = (
    *("device_id", "hub_id", "site_id", "customer_id", "productId", "ruleId", "condition", "severity"),
    "transition",
)
"""Names that stand for facts of the event; a metric of the same name is `metrics.name`."""

LONGEST: Final = 2000
_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_FORMAT: Final = re.compile(r"[<>^]?[+]?0?[0-9]{0,2},?(\.[0-9]{1,2})?[fegd%]?\Z")

Value = float | int | bool | str | None


@dataclass(frozen=True, slots=True)
class Field:
    """A name in braces: root is "" (one of WORDS), metrics, param or device."""

    root: str
    name: str
    format: str


@dataclass(frozen=True, slots=True)
class Template:
    """A message, cut into texts and fields."""

    pieces: tuple[str | Field, ...]

    def fill(self, lookup: Callable[[str, str], Value]) -> str:
        """The message; `lookup(root, name)` gives a value, None = unknown."""
        return "".join(
            piece if isinstance(piece, str) else shown(lookup(piece.root, piece.name), piece.format)
            for piece in self.pieces
        )


def parse_message(
    text: str, *, metrics: Collection[str], params: Collection[str], attributes: Collection[str], owner: str
) -> Template:
    """A template whose names are all known; raises ExpressionError with the place."""
    if len(text) > LONGEST:
        raise ExpressionError(
            f"a message of {len(text)} characters; at most {LONGEST} are taken", LONGEST, LONGEST + 1
        )
    known: Mapping[str, Collection[str]] = {
        "": WORDS,
        "metrics": metrics,
        "param": params,
        "device": attributes,
    }
    pieces: list[str | Field] = []
    for match in _PIECE.finditer(text):
        piece = match.group()
        if piece in ("{{", "}}"):
            pieces.append(piece[0])
        elif piece in ("{", "}"):
            raise ExpressionError(
                f"a single '{piece}'; write '{piece * 2}' for a brace", match.start(), match.end()
            )
        elif match.group(1) is None:
            pieces.append(piece)
        else:
            pieces.append(_field(match.group(1), known, owner, match.start(), match.end()))
    return Template(tuple(pieces))


def _field(inside: str, known: Mapping[str, Collection[str]], owner: str, start: int, stop: int) -> Field:
    name, colon, form = inside.partition(":")
    name = name.strip()
    if colon and not _FORMAT.match(form):
        raise ExpressionError(
            f"'{form[:20]}' is no number format; write for example {{{name[:20]}:.1f}}", start, stop
        )
    root, dot, rest = name.partition(".")
    if not dot or root not in known or not root:
        root, rest = "", name
        if name not in WORDS:
            root = "metrics"
    rest = rest.strip("`")
    if rest not in known[root]:
        if root == "metrics":
            mend = nearest(rest, [*known["metrics"], *WORDS])
            if not rest:
                mend = "; write '{{}}' for braces"
            elif name.startswith("formula"):
                mend = "; a message takes metrics, parameters and columns, no formulas"
            what = f"no metric '{rest[:40]}' in {owner}{mend}"
        elif root == "param":
            what = f"no parameter '{rest[:40]}' in {owner}{nearest(rest, known[root])}"
        else:
            what = f"no column '{rest[:40]}' in devices.csv{nearest(rest, known[root])}"
        raise ExpressionError(what, start, stop)
    return Field(root, rest, form)


def shown(value: Value, form: str) -> str:
    """A value as a person reads it: a whole number without a fraction, unknown as `unknown`."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if form.endswith("d"):
        return format(round(value), form)
    if form:
        return format(value, form)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
