"""Text of the expression language -> tokens."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from operators.expression.tree import ExpressionError

_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<number>0[xX][0-9a-fA-F]+ | (?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
  | (?P<name>[^\W\d]\w*)
  | (?P<quoted>`[^`\n]*`)
  | (?P<text>'(?:[^']|'')*' | "(?:[^"]|"")*")
  | (?P<op>\*\*|//|=>|=<|==|!=|<=|>=|<>|&&|\|\||[-+*/%<>().,=!^&|~?:\[\]{};@$])
    """,
    re.VERBOSE,
)
# behind a number and a blank: a UCUM unit such as bar, mm/s, [degF], {rev}/min; up to the next blank
_UNIT: Final = re.compile(
    r"""
    (?: [A-Za-z][A-Za-z0-9]* | \[[^\[\]\s]+\] | \{[^{}\n]*\} )
    (?: [A-Za-z0-9%] | [./](?=[A-Za-z0-9\[{]) | \[[^\[\]\s]+\] | \{[^{}\s]*\} )*
    """,
    re.VERBOSE,
)
KEYWORDS: Final = frozenset({"and", "or", "not", "true", "false", "null"})
_NO_UNITS: Final = KEYWORDS | {"if", "else", "is", "in", "between", "AND", "OR", "NOT", "And", "Or", "Not"}
"""Words behind a number that mean something else, here or in other languages."""
MENDS: Final = {
    "=": "'=' is no operator; write '==' to compare",
    "<>": "'<>' is no operator; write '!='",
    "&&": "'&&' is no operator; write 'and'",
    "||": "'||' is no operator; write 'or'",
    "!": "'!' is no operator; write 'not'",
    "^": "'^' is no operator; write '**' for a power",
    "&": "'&' is no operator; write bitand(a, b)",
    "|": "'|' is no operator; write bitor(a, b)",
    "=>": "'=>' is no operator; write '>='",
    "=<": "'=<' is no operator; write '<='",
    "//": "'//' is no operator; write floor(a / b)",
    "AND": "'AND' is no operator; write 'and'",
    "OR": "'OR' is no operator; write 'or'",
    "And": "'And' is no operator; write 'and'",
    "Or": "'Or' is no operator; write 'or'",
    "is": "'is' is no operator; write '==', e.g. a == null",
    "in": "'in' is no operator; write a == 1 or a == 2",
    "between": "'between' is no operator; write low < a and a < high",
    "if": "'if' is a function; write if(condition, then, else)",
    "else": "'else' is no operator; write if(condition, then, else)",
    "?": "'?' is no operator; write if(condition, then, else)",
}


class Token(NamedTuple):
    """A piece of the text at characters start..stop."""

    kind: str  # number unit name quoted text op end
    text: str
    start: int
    stop: int


def tokens(text: str) -> list[Token]:
    """The pieces of a text, blanks left out, and one of kind `end`; raises ExpressionError."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        if found and found[-1].kind == "number" and at > found[-1].stop:
            unit = _UNIT.match(text, at)
            if unit is not None and unit.group() not in _NO_UNITS:
                found.append(Token("unit", unit.group(), at, unit.end()))
                at = unit.end()
                continue
        match = _TOKEN.match(text, at)
        if match is None:
            what = text[at]
            if what in "'\"":
                raise ExpressionError(f"the text that begins here has no closing {what}", at, len(text))
            if what == "`":
                raise ExpressionError("the name that begins here has no closing '`'", at, len(text))
            if what in "°µΩ" and found and found[-1].kind == "number":
                raise ExpressionError("a unit is written as UCUM has it, e.g. Cel, um, Ohm", at, at + 1)
            raise ExpressionError(f"{what!r} means nothing here", at, at + 1)
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup or "op", match.group(), at, match.end()))
        at = match.end()
    found.append(Token("end", "", len(text), len(text) + 1))
    return found
