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
  | (?P<op>\*\*|==|!=|<=|>=|<>|&&|\|\||[-+*/%<>().,=!^&|~?:\[\]{};@$])
    """,
    re.VERBOSE,
)
MENDS: Final = {
    "=": "'=' is no operator; write '==' to compare",
    "<>": "'<>' is no operator; write '!='",
    "&&": "'&&' is no operator; write 'and'",
    "||": "'||' is no operator; write 'or'",
    "!": "'!' is no operator; write 'not'",
    "^": "'^' is no operator; write '**' for a power",
    "&": "'&' is no operator; write bitand(a, b)",
    "|": "'|' is no operator; write bitor(a, b)",
    "?": "'?' is no operator; write if(condition, then, else)",
}


class Token(NamedTuple):
    """A piece of the text at characters start..stop."""

    kind: str  # number duration name quoted text op end
    text: str
    start: int
    stop: int


def tokens(text: str) -> list[Token]:
    """The pieces of a text, blanks left out, and one of kind `end`; raises ExpressionError."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = text[at]
            if what in "'\"":
                raise ExpressionError(f"the text that begins here has no closing {what}", at, len(text))
            if what == "`":
                raise ExpressionError("the name that begins here has no closing '`'", at, len(text))
            raise ExpressionError(f"{what!r} means nothing here", at, at + 1)
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup or "op", match.group(), at, match.end()))
        at = match.end()
    found.append(Token("end", "", len(text), len(text) + 1))
    return found
