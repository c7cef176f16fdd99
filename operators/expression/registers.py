"""A column program, and how instructions get their registers: rows of numbers, trits and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from operators.batch import Float64, Int32
from operators.expression.machine import WITH_CONSTANT


class Column(NamedTuple):
    """An input column of a program: root is metrics, param or device."""

    root: str
    name: str


@dataclass(slots=True, eq=False)
class Program:
    """A column program.

    code: int32[L, 5]: operation, destination, operands a, b, c (see `machine`).
    columns: the inputs, in the order of their rows. constants: float64[K], constants of the
    comparisons; filled: float64[F], the constants that stand as whole columns in the first F
    temporary rows. temps, trits: how many temporary rows of numbers and of trits it needs.
    outputs: for each expression the row of its result; rows: how many result rows.
    """

    code: Int32
    columns: tuple[Column, ...]
    constants: Float64
    filled: Float64
    temps: int
    trits: int
    outputs: tuple[int, ...]
    rows: int


COLUMN: Final = -1
CONSTANT: Final = -2


class Instruction(NamedTuple):
    """One step before it has a register; its identity is its place in the list.

    op: an operation of the machine, or COLUMN (then `column` is the input's row) or CONSTANT (then
    `constant` is the value). operands: identities. trit: whether it gives truth, not numbers.
    """

    op: int
    operands: tuple[int, ...]
    trit: bool
    constant: float = 0.0
    column: int = -1


def allocate(
    instructions: Sequence[Instruction], columns: tuple[Column, ...], results: Sequence[int]
) -> Program:
    """The program that computes the results (identities of trit instructions), each once, out of
    what they need; a register is given back after its last use."""
    needed = _needed(instructions, results)
    rows = {identity: row for row, identity in enumerate(dict.fromkeys(results))}
    last_use = {operand: at for at in needed for operand in instructions[at].operands}
    filled = [at for at in needed if instructions[at].op == CONSTANT and at in last_use]
    base = max(1, len(columns))
    place = {at: instructions[at].column for at in needed if instructions[at].op == COLUMN}
    place.update({at: base + row for row, at in enumerate(filled)})
    numbers, trits = _Rows(base + len(filled)), _Rows(0)
    code: list[tuple[int, int, int, int, int]] = []
    constants: list[float] = []
    for at in needed:
        instruction = instructions[at]
        if instruction.op < 0:
            continue
        operands = [place[operand] for operand in instruction.operands]
        for operand in set(instruction.operands):
            if last_use[operand] == at and instructions[operand].op >= 0 and operand not in rows:
                (trits if instructions[operand].trit else numbers).give(place[operand])
        if at in rows:
            place[at] = -1 - rows[at]  # a result row: numbered behind the temporary trits below
        else:
            place[at] = (trits if instruction.trit else numbers).take()
        operands += [0] * (3 - len(operands))
        if instruction.op in WITH_CONSTANT:
            operands[1] = len(constants)
            constants.append(instruction.constant)
        code.append((instruction.op, place[at], operands[0], operands[1], operands[2]))
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
    )


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
