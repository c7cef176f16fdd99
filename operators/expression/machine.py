"""The kernel that runs a column program over a chunk of rows at a time.

Numbers are float64 columns, NaN = unknown. Truth is a trit in a byte: TRUE, FALSE, or UNKNOWN;
bit 0 says "true" and bit 1 says "false", so that Kleene's logic is plain bit arithmetic that the
compiler makes wide. Every operation gives NaN where its result is not finite or not defined
(division by zero, root of a negative number, overflow), and unknown in, unknown out, except `if`,
`default`, `== null`, `and`, `or`.

`exp log log10 pow` are libm's, element by element.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from operators.batch import Bytes, Float64, Int32
from operators.jit import inline, kernel

if TYPE_CHECKING:
    from operators.expression.registers import Program

UNKNOWN: Final = 0
TRUE: Final = 1
FALSE: Final = 2

CHUNK: Final = 2048

# number, number -> number
ADD, SUB, MUL, DIV, MIN, MAX = 0, 1, 2, 3, 4, 5
NEG, ABS, FLOOR, CEIL = 6, 7, 8, 9
DEFAULT: Final = 10
IF: Final = 11  # trit, number, number -> number
FROM_TRIT: Final = 12
# number, number -> number, element by element; those of one operand take it twice
SQRT, EXP, LOG, LOG10, POW, MOD, ROUND = 20, 21, 22, 23, 24, 25, 26
BITAND, BITOR, BITXOR, SHL, SHR, POPCOUNT = 27, 28, 29, 30, 31, 32
# number, number -> trit
LT, LE, EQ, NE, IS_NULL = 40, 41, 42, 43, 44
# number, index of a constant -> trit
LTC, LEC, GTC, GEC, EQC, NEC = 50, 51, 52, 53, 54, 55
# trits -> trit
AND, OR, NOT, IF_TRIT, DEFAULT_TRIT = 60, 61, 62, 63, 64
FILL: Final = 65  # index of a constant -> trit

WITH_CONSTANT: Final = frozenset({LTC, LEC, GTC, GEC, EQC, NEC, FILL})

_WHOLE: Final = 9007199254740992.0  # 2**53
_LARGEST: Final = 1.7976931348623157e308


@inline
def _round_half_away(x: float, digits: float) -> float:
    """Half away from zero, on the shortest decimal that stands for the double (4.475 -> 4.48).

    A tie is a decimal of at most 15 digits, and those are told apart by their nearest doubles: so
    x is compared with the double nearest to the tie.
    """
    scale = 1.0
    for _ in range(int(digits)):
        scale *= 10.0
    size = abs(x)
    below = math.floor(size * scale)
    if not 2.0 * below + 1.0 < _WHOLE:
        return x
    result = (below + 1.0) / scale if size >= (2.0 * below + 1.0) / (2.0 * scale) else below / scale
    return -result if x < 0.0 else result


@inline
def _elementwise(op: int, a: float, b: float) -> float:
    """One value of the operations that are not worth a loop of their own; may be infinite."""
    if a != a or b != b:
        return np.nan
    if op == SQRT:
        return math.sqrt(a) if a >= 0.0 else np.nan
    if op == EXP:
        return math.exp(a) if a < 710.0 else np.nan
    if op == LOG:
        return math.log(a) if a > 0.0 else np.nan
    if op == LOG10:
        return math.log10(a) if a > 0.0 else np.nan
    if op == POW:
        return math.pow(a, b)
    if op == MOD:
        if b == 0.0:
            return np.nan
        rest = float(np.fmod(a, b))
        return rest + b if rest != 0.0 and (rest < 0.0) != (b < 0.0) else rest
    if op == ROUND:
        return _round_half_away(a, b)
    if a < 0.0 or b < 0.0 or a >= _WHOLE or b >= _WHOLE or a != math.floor(a) or b != math.floor(b):
        return np.nan
    left, right = np.int64(a), np.int64(b)
    if op == BITAND:
        return float(left & right)
    if op == BITOR:
        return float(left | right)
    if op == BITXOR:
        return float(left ^ right)
    if op == SHL:
        if right > 52:
            return 0.0 if left == 0 else np.nan
        shifted = float(left) * float(np.int64(1) << right)
        return shifted if shifted < _WHOLE else np.nan
    if op == SHR:
        return float(left >> right) if right < 63 else 0.0
    ones = 0
    while left:
        left &= left - 1
        ones += 1
    return float(ones)


@kernel
def evaluate(
    code: Int32,
    constants: Float64,
    columns: Float64,
    rows: int,
    temps: Float64,
    trits: Bytes,
    out: Bytes,
    any_true: Bytes,
) -> None:
    """Run a program over rows 0..rows.

    code: int32[L, 5]. constants: float64[K]. columns: float64[C, >= rows], the inputs.
    temps: float64[T, CHUNK], its first rows filled with constants; trits: uint8[S, CHUNK].
    Operands that are numbers: below C a column, then a temporary row; trits: below S a temporary
    row, then a row of out. out: uint8[O, >= rows] receives the results; any_true: uint8[O]: bit 0
    set where a result is TRUE in any row.
    """
    width = columns.shape[0]
    own = trits.shape[0]
    any_true[:] = 0
    for start in range(0, rows, CHUNK):
        stop = min(start + CHUNK, rows)
        n = stop - start
        for line in range(code.shape[0]):
            op = code[line, 0]
            to, ia, ib, ic = code[line, 1], code[line, 2], code[line, 3], code[line, 4]
            if op < 40:
                r = temps[to - width, :n]
                if op == IF:
                    test = trits[ia, :n] if ia < own else out[ia - own, start:stop]
                    b = columns[ib, start:stop] if ib < width else temps[ib - width, :n]
                    c = columns[ic, start:stop] if ic < width else temps[ic - width, :n]
                    for i in range(n):
                        r[i] = b[i] if test[i] == 1 else (c[i] if test[i] == 2 else np.nan)
                elif op == FROM_TRIT:
                    test = trits[ia, :n] if ia < own else out[ia - own, start:stop]
                    for i in range(n):
                        r[i] = 1.0 if test[i] == 1 else (0.0 if test[i] == 2 else np.nan)
                else:
                    a = columns[ia, start:stop] if ia < width else temps[ia - width, :n]
                    b = columns[ib, start:stop] if ib < width else temps[ib - width, :n]
                    if op == ADD:
                        for i in range(n):
                            x = a[i] + b[i]
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                    elif op == SUB:
                        for i in range(n):
                            x = a[i] - b[i]
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                    elif op == MUL:
                        for i in range(n):
                            x = a[i] * b[i]
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                    elif op == DIV:
                        for i in range(n):
                            x = a[i] / b[i]
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                    elif op == MIN:
                        for i in range(n):
                            r[i] = a[i] if a[i] < b[i] or a[i] != a[i] else b[i]
                    elif op == MAX:
                        for i in range(n):
                            r[i] = a[i] if a[i] > b[i] or a[i] != a[i] else b[i]
                    elif op == NEG:
                        for i in range(n):
                            r[i] = -a[i]
                    elif op == ABS:
                        for i in range(n):
                            r[i] = abs(a[i])
                    elif op == FLOOR:
                        for i in range(n):
                            r[i] = np.floor(a[i])
                    elif op == CEIL:
                        for i in range(n):
                            r[i] = np.ceil(a[i])
                    elif op == DEFAULT:
                        for i in range(n):
                            r[i] = a[i] if a[i] == a[i] else b[i]
                    else:
                        for i in range(n):
                            x = _elementwise(op, a[i], b[i])
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                continue
            t = trits[to, :n] if to < own else out[to - own, start:stop]
            if op < 60:
                a = columns[ia, start:stop] if ia < width else temps[ia - width, :n]
                if op >= LTC:
                    limit = constants[ib]
                    if op == LTC:
                        for i in range(n):
                            t[i] = np.uint8(a[i] < limit) | (np.uint8(a[i] >= limit) << np.uint8(1))
                    elif op == LEC:
                        for i in range(n):
                            t[i] = np.uint8(a[i] <= limit) | (np.uint8(a[i] > limit) << np.uint8(1))
                    elif op == GTC:
                        for i in range(n):
                            t[i] = np.uint8(a[i] > limit) | (np.uint8(a[i] <= limit) << np.uint8(1))
                    elif op == GEC:
                        for i in range(n):
                            t[i] = np.uint8(a[i] >= limit) | (np.uint8(a[i] < limit) << np.uint8(1))
                    else:
                        same = np.uint8(1) if op == EQC else np.uint8(2)
                        other = np.uint8(3) - same
                        for i in range(n):
                            x = a[i]
                            known = x == x and limit == limit
                            t[i] = (same if x == limit else other) if known else np.uint8(0)
                elif op == IS_NULL:
                    for i in range(n):
                        t[i] = np.uint8(2) if a[i] == a[i] else np.uint8(1)
                else:
                    b = columns[ib, start:stop] if ib < width else temps[ib - width, :n]
                    if op == LT:
                        for i in range(n):
                            t[i] = np.uint8(a[i] < b[i]) | (np.uint8(a[i] >= b[i]) << np.uint8(1))
                    elif op == LE:
                        for i in range(n):
                            t[i] = np.uint8(a[i] <= b[i]) | (np.uint8(a[i] > b[i]) << np.uint8(1))
                    else:
                        same = np.uint8(1) if op == EQ else np.uint8(2)
                        other = np.uint8(3) - same
                        for i in range(n):
                            known = a[i] == a[i] and b[i] == b[i]
                            t[i] = (same if a[i] == b[i] else other) if known else np.uint8(0)
            elif op == FILL:
                filled = np.uint8(constants[ib])
                for i in range(n):
                    t[i] = filled
            else:
                p = trits[ia, :n] if ia < own else out[ia - own, start:stop]
                if op == NOT:
                    for i in range(n):
                        t[i] = ((p[i] & np.uint8(1)) << np.uint8(1)) | (p[i] >> np.uint8(1))
                else:
                    q = trits[ib, :n] if ib < own else out[ib - own, start:stop]
                    if op == AND:
                        for i in range(n):
                            t[i] = (p[i] & q[i] & np.uint8(1)) | ((p[i] | q[i]) & np.uint8(2))
                    elif op == OR:
                        for i in range(n):
                            t[i] = ((p[i] | q[i]) & np.uint8(1)) | (p[i] & q[i] & np.uint8(2))
                    elif op == DEFAULT_TRIT:
                        for i in range(n):
                            t[i] = p[i] if p[i] != 0 else q[i]
                    else:
                        s = trits[ic, :n] if ic < own else out[ic - own, start:stop]
                        for i in range(n):
                            t[i] = q[i] if p[i] == 1 else (s[i] if p[i] == 2 else np.uint8(0))
        for row in range(out.shape[0]):
            seen = np.uint8(0)
            line_of = out[row, start:stop]
            for i in range(n):
                seen |= line_of[i]
            any_true[row] |= seen & np.uint8(1)


def constant(op: int, a: float, b: float) -> float:
    """An operation on two constants, as the kernel does it; NaN = unknown."""
    code = np.array([[op, 1, 0, 2, 0]], np.int32)
    temps = np.zeros((3, CHUNK))
    temps[1, 0] = b
    # columns: the first operand; temporary rows: 1 the result, 2 the second operand
    columns = np.array([[a]], np.float64)
    evaluate(code, np.zeros(1), columns, 1, temps, np.zeros((1, CHUNK), np.uint8), *_no_results())
    return float(temps[0, 0])


def _no_results() -> tuple[Bytes, Bytes]:
    return np.zeros((1, 1), np.uint8), np.zeros(1, np.uint8)


class Machine:
    """A program with its scratch memory; `columns` are filled by the caller before `run`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.columns: Float64 = np.full((max(1, len(program.columns)), 0), np.nan)
        self.temps: Float64 = np.zeros((max(1, program.temps), CHUNK))
        self.temps[: len(program.filled)] = program.filled[:, None]
        self.trits: Bytes = np.zeros((max(1, program.trits), CHUNK), np.uint8)
        self.out: Bytes = np.zeros((max(1, program.rows), 0), np.uint8)
        self.any_true: Bytes = np.zeros(max(1, program.rows), np.uint8)

    def room(self, rows: int) -> Float64:
        """The input columns float64[C, >= rows], to be filled for rows 0..rows."""
        if self.columns.shape[1] < rows:
            wide = -(-max(rows, 2 * self.columns.shape[1]) // CHUNK) * CHUNK
            self.columns = np.full((self.columns.shape[0], wide), np.nan)
        return self.columns

    def run(self, rows: int, columns: Float64 | None = None) -> Bytes:
        """Results uint8[O, >= rows] of the given columns (default: those of `room`); valid until
        the next run."""
        if columns is None:
            columns = self.columns
        if self.out.shape[1] < rows:
            self.out = np.zeros((self.out.shape[0], -(-rows // CHUNK) * CHUNK), np.uint8)
        evaluate(
            self.program.code,
            self.program.constants,
            columns,
            rows,
            self.temps,
            self.trits,
            self.out,
            self.any_true,
        )
        return self.out


def warm_up() -> None:
    """Compile the kernel."""
    constant(ADD, 1.0, 2.0)
