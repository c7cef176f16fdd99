"""The transition table of alarms, after ISA-18.2 and OPC UA Part 9: one table, as data.

Dimensions of a subject (one rule of one device, or one limit of it) are independent of each other:

    open            an occurrence is there, from `raised` to `closed`
    active          what raised it holds, until it cleared
    acknowledged    nobody has to acknowledge it (any more)
    latched         it waits for `reset` once it has cleared (rules with `latch: true`)
    shelved         an operator put it aside, until a time
    suppressed      an operator suppressed it
    overruled       another alarm suppresses it (`suppressed_by`, a limit beyond)
    out_of_service  an operator took it out of service

`suppressed` of an event's state is true for suppressed or overruled. Shelved, suppressed and
out_of_service stay with the subject: an occurrence stays open while one of them stands, and they carry
over to the next one. Bad quality and silence change nothing.

Of the rows for what happens the first whose needs are met counts; an operator's action that meets a row
without event is refused with that row's words, and so is every action on an occurrence that is over.
After each row the last one is tried.
"""

from __future__ import annotations

from typing import Final, NamedTuple

DIMENSIONS: Final = (
    "open",
    "active",
    "acknowledged",
    "latched",
    "shelved",
    "suppressed",
    "overruled",
    "out_of_service",
)
BITS: Final = {name: 1 << at for at, name in enumerate(DIMENSIONS)}
OPEN, ACTIVE, ACKNOWLEDGED, LATCHED, SHELVED, SUPPRESSED, OVERRULED, OUT_OF_SERVICE = BITS.values()


class Row(NamedTuple):
    """needs, then: words of dimensions, `-x` where it must not be, or is no longer, so. `as its rule
    says` of a new occurrence: acknowledged unless it is to be acknowledged, latched with `latch`.
    event: "" where there is none. refusal: what an operator is told instead."""

    happens: str
    needs: str
    then: str
    event: str = ""
    refusal: str = ""


AS_ITS_RULE_SAYS: Final = "as its rule says"

TABLE: Final = (
    Row("raise", "open", "-open -active", "closed"),  # and then the next row
    Row("raise", "-open", f"open active, acknowledged and latched {AS_ITS_RULE_SAYS}", "raised"),
    Row("clear", "open active", "-active", "cleared"),
    Row("overrule", "overruled", ""),
    Row("overrule", "open -suppressed", "overruled", "suppressed"),
    Row("overrule", "", "overruled"),
    Row("release", "overruled open -suppressed", "-overruled", "unsuppressed"),
    Row("release", "", "-overruled"),
    Row("escalate", "open", "", "escalated"),
    Row("shelving ends", "open shelved", "-shelved", "unshelved"),
    Row("rule gone", "open", "-open -active", "closed"),
    Row("ack", "acknowledged", "", refusal="is acknowledged already, or need not be"),
    Row("ack", "-acknowledged", "acknowledged", "acknowledged"),
    Row("reset", "-latched", "", refusal="is not latched; there is nothing to reset"),
    Row("reset", "latched active", "", refusal="is still active; it can be reset once it has cleared"),
    Row("reset", "latched -active", "-latched", "reset"),
    Row("shelve", "", "shelved", "shelved"),  # a shelved one: until the new time
    Row("unshelve", "-shelved", "", refusal="is not shelved"),
    Row("unshelve", "shelved", "-shelved", "unshelved"),
    Row("suppress", "suppressed", "", refusal="is suppressed already"),
    Row("suppress", "-suppressed", "suppressed", "suppressed"),
    Row(
        "unsuppress",
        "-suppressed overruled",
        "",
        refusal="is suppressed by another alarm, and will be while that lasts",
    ),
    Row("unsuppress", "-suppressed", "", refusal="is not suppressed"),
    Row("unsuppress", "suppressed", "-suppressed", "unsuppressed"),
    Row("out_of_service", "out_of_service", "", refusal="is out of service already"),
    Row("out_of_service", "-out_of_service", "out_of_service", "out_of_service"),
    Row("in_service", "-out_of_service", "", refusal="is in service"),
    Row("in_service", "out_of_service", "-out_of_service", "in_service"),
    Row(
        "then",
        "open -active acknowledged -latched -shelved -suppressed -out_of_service",
        "-open",
        "closed",
    ),
)
"""What happens, in which state, what becomes of it, and the event that tells of it."""

ACTIONS: Final = (
    *("ack", "shelve", "unshelve", "suppress", "unsuppress", "reset", "out_of_service", "in_service"),
)
"""What an operator can do to an occurrence that is open."""


class Compiled(NamedTuple):
    """A row as bits: met where `flags & asked == wanted`; then `flags & ~off | on`."""

    row: Row
    asked: int
    wanted: int
    on: int
    off: int


def _compiled(row: Row) -> Compiled:
    asked = wanted = on = off = 0
    for word in row.needs.split():
        bit = BITS[word.removeprefix("-")]
        asked |= bit
        wanted |= 0 if word.startswith("-") else bit
    for word in row.then.partition(",")[0].split():
        bit = BITS[word.removeprefix("-")]
        off, on = (off | bit, on) if word.startswith("-") else (off, on | bit)
    return Compiled(row, asked, wanted, on, off)


def _rows(happens: str) -> tuple[Compiled | None, ...]:
    """The row that counts, by the bits of a subject."""
    rows = [_compiled(row) for row in TABLE if row.happens == happens]
    return tuple(
        next((row for row in rows if flags & row.asked == row.wanted), None)
        for flags in range(1 << len(DIMENSIONS))
    )


_ROWS: Final = {happens: _rows(happens) for happens in dict.fromkeys(row.happens for row in TABLE)}


def met(happens: str, flags: int) -> Compiled | None:
    """The row for what happens to a subject whose dimensions are the bits `flags`; None where
    there is none, and nothing happens."""
    return _ROWS[happens][flags]


def markdown() -> str:
    """The table as `docs/alarms.md` shows it."""
    lines = ["| what happens | if it is | then it is | event, or refusal |", "|---|---|---|---|"]
    for row in TABLE:
        needs = row.needs.replace("-", "not ") or "anything"
        then = row.then.replace("-", "not ") or "as it was"
        lines.append(f"| {row.happens} | {needs} | {then} | {row.event or row.refusal} |")
    return "\n".join(lines)
