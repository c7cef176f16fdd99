"""A column program, and how instructions get their registers: rows of numbers, trits and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from operators.batch import Float64, Int32, Int64
from operators.expression import kernels as k


class Column(NamedTuple):
    """An input column of a program: root is metrics, param or device."""

    root: str
    name: str


class Past(NamedTuple):
    """An operation over a device's past: its rows in the state arrays (number.. and time..), its
    samples (-1: none), and the canonical texts under which its state is kept."""

    op: int
    number: int
    numbers: int
    time: int
    times: int
    span: int
    texts: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Program:
    """A column program.

    code: int32[L, 5]: operation, destination, operands a, b, c (see `kernels`).
    columns: the inputs, in the order of their rows. constants: float64[K], constants of the
    comparisons; filled: float64[F], the constants that stand as whole columns in the first F
    temporary rows. temps, trits: how many temporary rows of numbers and of trits it needs.
    outputs: for each condition the row of its result; rows: how many result rows.
    value_outputs: for each number asked for the row where it is stored; value_rows: how many.
    past: operations over the past; past_table: int64[P, 11] of them, as the kernel reads it.
    limits: for each condition and then each number the spans (samples of a duration) that it is
    made from: its value is unknown where one of them holds too many samples.
    """

    code: Int32
    columns: tuple[Column, ...]
    constants: Float64
    filled: Float64
    temps: int
    trits: int
    outputs: tuple[int, ...]
    rows: int
    value_outputs: tuple[int, ...]
    value_rows: int
    past: tuple[Past, ...]
    past_table: Int64
    limits: tuple[tuple[int, ...], ...] = ()

    @property
    def spans(self) -> tuple[Past, ...]:
        """The operations that keep samples of a duration."""
        return tuple(one for one in self.past if one.span >= 0)

    @property
    def past_numbers(self) -> int:
        return sum(one.numbers for one in self.past)

    @property
    def past_times(self) -> int:
        return sum(one.times for one in self.past)


COLUMN: Final = -1
CONSTANT: Final = -2
FOLD: Final = -3  # of a SPAN, its operand: `column` is the place in FOLDS


class Instruction(NamedTuple):
    """One step before it has a register; its identity is its place in the list.

    op: an operation of the machine, or COLUMN (then `column` is the input's row) or CONSTANT (then
    `constant` is the value), or FOLD. operands: identities. trit: whether it gives truth, not
    numbers. HELD and SPAN have their duration in nanoseconds in `constant`; SPAN has the most
    samples that it keeps in `column`, and no value of its own: FOLD takes one of its aggregates.
    """

    op: int
    operands: tuple[int, ...]
    trit: bool
    constant: float = 0.0
    column: int = -1


def allocate(
    instructions: Sequence[Instruction],
    columns: tuple[Column, ...],
    results: Sequence[int],
    values: Sequence[int] = (),
    texts: Mapping[int, Sequence[str]] | None = None,
) -> Program:
    """The program that computes the results (identities of trit instructions) and stores the values
    (of numbers), each once, out of what they need; a register is given back after its last use.
    texts: the canonical texts of the operations over the past."""
    needed = _needed(instructions, [*results, *values])
    rows = {identity: row for row, identity in enumerate(dict.fromkeys(results))}
    stored = {identity: row for row, identity in enumerate(dict.fromkeys(values))}
    last_use = {operand: at for at in needed for operand in instructions[at].operands}
    filled = [at for at in needed if instructions[at].op == CONSTANT and (at in last_use or at in stored)]
    folds: dict[int, list[int]] = {}
    for at in needed:
        if instructions[at].op == FOLD:
            folds.setdefault(instructions[at].operands[0], []).append(at)
    base = max(1, len(columns))
    place = {at: instructions[at].column for at in needed if instructions[at].op == COLUMN}
    place.update({at: base + row for row, at in enumerate(filled)})
    numbers, trits = _Rows(base + len(filled)), _Rows(0)
    code: list[tuple[int, int, int, int, int]] = []
    constants: list[float] = []
    past = _Pasts(texts or {})
    for at in needed:
        instruction = instructions[at]
        if instruction.op >= 0:
            operands = [place[operand] for operand in instruction.operands]
            for operand in set(instruction.operands):
                if last_use[operand] != at or operand in rows or operand in stored:
                    continue
                if instructions[operand].op >= 0 or instructions[operand].op == FOLD:
                    (trits if instructions[operand].trit else numbers).give(place[operand])
            if instruction.op == k.SPAN:
                place[at] = 0
                place.update({fold: numbers.take() for fold in folds[at]})
            elif at in rows:
                place[at] = -1 - rows[at]  # a result row: numbered behind the temporary trits below
            else:
                place[at] = (trits if instruction.trit else numbers).take()
            operands += [0] * (3 - len(operands))
            if instruction.op in k.WITH_CONSTANT:
                operands[1] = len(constants)
                constants.append(instruction.constant)
            elif instruction.op >= k.PREV:
                operands[1] = past.add(
                    at, instruction, [(instructions[f].column, place[f]) for f in folds.get(at, ())]
                )
            code.append((instruction.op, place[at], operands[0], operands[1], operands[2]))
        if at in stored:
            code.append((k.STORE, stored[at], place[at], 0, 0))
    table = np.array(code, np.int32).reshape(-1, 5)
    # destinations and trit operands below zero are result rows: they follow the temporary trits
    behind = max(1, trits.most)
    table[:, 1:] = np.where(table[:, 1:] < 0, behind - 1 - table[:, 1:], table[:, 1:])
    return Program(
        table,
        columns,
        np.array(constants, np.float64),
        np.array([instructions[at].constant for at in filled], np.float64),
        numbers.most - base,
        behind,
        tuple(rows[identity] for identity in results),
        len(rows),
        tuple(stored[identity] for identity in values),
        len(stored),
        tuple(past.found),
        np.array(past.lines, np.int64).reshape(-1, k.PAST_FOLDS + len(k.FOLDS)),
        tuple(
            tuple(past.span_of[one] for one in _needed(instructions, [root]) if one in past.span_of)
            for root in (*results, *values)
        ),
    )


class _Pasts:
    """The operations over the past that a program holds so far, and their rows of state."""

    def __init__(self, texts: Mapping[int, Sequence[str]]) -> None:
        self.texts = texts
        self.found: list[Past] = []
        self.lines: list[list[int]] = []
        self.span_of: dict[int, int] = {}
        self.numbers = self.times = 0

    def add(self, at: int, instruction: Instruction, folds: Sequence[tuple[int, int]]) -> int:
        """The line of an operation; folds: which aggregates it gives, and where to."""
        op = instruction.op
        numbers, times = _STATE[op]
        span = len(self.span_of) if op == k.SPAN else -1
        if span >= 0:
            self.span_of[at] = span
        self.found.append(
            Past(op, self.numbers, numbers, self.times, times, span, tuple(self.texts.get(at, ())))
        )
        line = [self.numbers, self.times, span, round(instruction.constant), instruction.column]
        destinations = dict(folds)
        self.lines.append(line + [destinations.get(fold, -1) for fold in range(len(k.FOLDS))])
        self.numbers += numbers
        self.times += times
        return len(self.lines) - 1


_STATE: Final = {k.PREV: (1, 0), k.RATE: (1, 1), k.SINCE: (0, 1), k.HELD: (0, 2), k.SPAN: (0, 1)}
"""How many rows of numbers and of times an operation keeps."""


def _needed(instructions: Sequence[Instruction], roots: Sequence[int]) -> list[int]:
    """The instructions that the roots need, in order."""
    wanted = set(roots)
    for at in range(len(instructions) - 1, -1, -1):
        if at in wanted:
            wanted.update(instructions[at].operands)
    return sorted(wanted)


class _Rows:
    """Rows that are taken and given back; `most` = one more than the highest ever taken."""

    def __init__(self, first: int) -> None:
        self.free: list[int] = []
        self.most = first

    def take(self) -> int:
        if self.free:
            return self.free.pop()
        self.most += 1
        return self.most - 1

    def give(self, row: int) -> None:
        self.free.append(row)
