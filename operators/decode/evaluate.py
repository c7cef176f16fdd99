"""Expressions over the values of one frame or reading: tree -> postfix program -> one kernel.

A value is a float64 with a kind: ABSENT, NULL, INT, FLOAT, BOOL, TEXT (its 52-bit code). A name
that is absent makes the result absent, null makes it null; `and or not` are three-valued, `if`
and `default` lazy; division by zero, a square root or logarithm outside its domain and overflow
are null. `derive_columns` runs `derive:` of a JSON or CSV product with the same meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import ABSENT as Q_ABSENT
from operators.batch import BAD, GOOD, UNCERTAIN, Bytes, Float64, Int64
from operators.decode.exact import rounded
from operators.expression.tree import (
    Binary,
    Bool,
    Call,
    Compare,
    Duration,
    Expr,
    Logic,
    Name,
    Not,
    Null,
    Number,
    Text,
    Unary,
)
from operators.jit import kernel
from operators.text import text_code

ABSENT: Final = 0
NULL: Final = 1
INT: Final = 2
FLOAT: Final = 3
BOOL: Final = 4
TEXT: Final = 5

_END, _CONST, _ROW, _LOCAL, _OR_NEXT, _PARAM, _PORT, _LENGTH = range(8)
_JUMP, _IF, _IF_KNOWN, _IS_NULL = range(8, 12)
_UNARY: Final = {
    "neg": 20, "not": 21, "abs": 22, "sqrt": 23, "exp": 24, "log": 25, "log10": 26, "floor": 27,
    "ceil": 28, "round": 29, "popcount": 30,
}  # fmt: skip
_BINARY: Final = {
    "+": 40, "-": 41, "*": 42, "/": 43, "%": 44, "**": 45, "min": 46, "max": 47, "round": 48,
    "bitand": 49, "bitor": 50, "bitxor": 51, "shl": 52, "shr": 53, "==": 54, "!=": 55, "<": 56,
    "<=": 57, ">": 58, ">=": 59, "and": 60, "or": 61,
}  # fmt: skip
STACK: Final = 512
PORT: Final = _PORT

Source = tuple[str, int]
"""Where a name's value is found: ("row", slot), ("outer", slot): this reading, then the ones it
is inside of, or ("local", n)."""


@dataclass(slots=True, eq=False)
class Programs:
    """Programs one behind the other. code: (op, a, b); constants; texts: code -> text."""

    params: Sequence[str]
    code: list[tuple[int, int, int]] = field(default_factory=list)
    constants: list[float] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)

    def add(self, tree: Expr, lookup: Callable[[Name], Sequence[Source]]) -> int:
        """Compile a tree; returns where its program starts. `lookup` gives a name's sources in
        the order in which they are tried."""
        start = len(self.code)
        self._emit(tree, lookup)
        self._put(_END)
        return start

    def tables(self) -> tuple[Int64, Float64]:
        """int64[n, 3] and float64[m], as the kernel takes them."""
        code = np.array(self.code or [(_END, 0, 0)], np.int64).reshape(-1, 3)
        return np.ascontiguousarray(code), np.array(self.constants or [0.0], np.float64)

    def _put(self, op: int, a: int = 0, b: int = 0) -> int:
        self.code.append((op, a, b))
        return len(self.code) - 1

    def _constant(self, value: float, kind: int) -> None:
        self.constants.append(value)
        self._put(_CONST, len(self.constants) - 1, kind)

    def _emit(self, tree: Expr, lookup: Callable[[Name], Sequence[Source]]) -> None:
        if isinstance(tree, Number):
            whole = tree.value == math.floor(tree.value) and not set(tree.text) & set(".eE")
            whole = whole or tree.text[:2] in ("0x", "0X")
            self._constant(tree.value, INT if whole else FLOAT)
        elif isinstance(tree, Text):
            code = text_code(tree.value)
            self.texts[code] = tree.value
            self._constant(float(code), TEXT)
        elif isinstance(tree, Bool):
            self._constant(float(tree.value), BOOL)
        elif isinstance(tree, Null):
            self._constant(math.nan, NULL)
        elif isinstance(tree, Name):
            self._name(tree, lookup)
        elif isinstance(tree, Unary):
            self._emit(tree.operand, lookup)
            self._put(_UNARY["neg"])
        elif isinstance(tree, Not):
            self._emit(tree.operand, lookup)
            self._put(_UNARY["not"])
        elif isinstance(tree, Logic):
            self._chain(tree.op, tree.operands, lookup)
        elif isinstance(tree, Compare) and isinstance(tree.right, Null) and tree.op in ("==", "!="):
            self._emit(tree.left, lookup)
            self._put(_IS_NULL, int(tree.op == "=="))
        elif isinstance(tree, Compare) and isinstance(tree.left, Null) and tree.op in ("==", "!="):
            self._emit(tree.right, lookup)
            self._put(_IS_NULL, int(tree.op == "=="))
        elif isinstance(tree, Binary | Compare):
            self._chain(tree.op, (tree.left, tree.right), lookup)
        elif isinstance(tree, Call):
            self._call(tree, lookup)
        elif isinstance(tree, Duration):
            raise ValueError("a duration has no value of its own")

    def _chain(self, op: str, operands: Sequence[Expr], lookup: Callable[[Name], Sequence[Source]]) -> None:
        for n, operand in enumerate(operands):
            self._emit(operand, lookup)
            if n:
                self._put(_BINARY[op])

    def _name(self, name: Name, lookup: Callable[[Name], Sequence[Source]]) -> None:
        if name.root == "param":
            self._put(_PARAM, list(self.params).index(".".join(name.parts)))
        elif name.root == "frame":
            self._put(_PORT if name.parts == ("port",) else _LENGTH)
        else:
            sources = list(lookup(name))
            ends = []
            for n, (where, place) in enumerate(sources):
                self._put(_LOCAL if where == "local" else _ROW, place, int(where == "outer"))
                if n + 1 < len(sources):
                    ends.append(self._put(_OR_NEXT))
            if not sources:
                self._constant(math.nan, ABSENT)
            for end in ends:
                self.code[end] = (_OR_NEXT, len(self.code), 0)

    def _call(self, tree: Call, lookup: Callable[[Name], Sequence[Source]]) -> None:
        arguments = tree.arguments
        if tree.function == "if":
            self._emit(arguments[0], lookup)
            test = self._put(_IF)
            self._emit(arguments[1], lookup)
            jump = self._put(_JUMP)
            other = len(self.code)
            self._emit(arguments[2], lookup)
            self.code[test] = (_IF, other, len(self.code))
            self.code[jump] = (_JUMP, len(self.code), 0)
        elif tree.function == "default":
            self._emit(arguments[0], lookup)
            test = self._put(_IF_KNOWN)
            self._emit(arguments[1], lookup)
            self.code[test] = (_IF_KNOWN, len(self.code), 0)
        elif tree.function == "clamp":
            self._chain("max", arguments[:2], lookup)
            self._emit(arguments[2], lookup)
            self._put(_BINARY["min"])
        elif tree.function == "pow":
            self._chain("**", arguments, lookup)
        elif len(arguments) == 1:
            self._emit(arguments[0], lookup)
            self._put(_UNARY[tree.function])
        else:
            self._chain(tree.function, arguments, lookup)


@kernel
def run_program(
    code: Int64,
    constants: Float64,
    pc: int,
    value: Float64,
    kind: Bytes,
    row: int,
    outer: Int64,
    local: Float64,
    local_kind: Bytes,
    params: Float64,
    frame: int,
    port: int,
    length: int,
    sv: Float64,
    sk: Bytes,
) -> None:
    """Run the program at `pc`; its result is left in sv[0], sk[0].

    value, kind: float64, uint8 [rows, slots]; outer: int64[rows] the reading that a row is inside
    of, -1 = none; local, local_kind: by local number; params: float64[P, frames], NaN = none;
    frame: column of `params`; port: -1 = unknown; sv, sk: the stack, STACK deep.
    """
    sp = -1
    while True:
        op = code[pc, 0]
        a = code[pc, 1]
        b = code[pc, 2]
        pc += 1
        if op == 0:
            return
        if op < 8:
            if op == 4:  # try the next source of a name
                if sk[sp] != 0:
                    pc = a
                else:
                    sp -= 1
                continue
            sp += 1
            v: Any = np.nan
            k: Any = 0
            if op == 1:
                v = constants[a]
                k = b
            elif op == 2:
                at: Any = row
                while at >= 0:
                    if kind[at, a] != 0:
                        v = value[at, a]
                        k = np.int64(kind[at, a])
                        break
                    at = outer[at] if b == 1 else -1
            elif op == 3:
                v = local[a]
                k = np.int64(local_kind[a])
            elif op == 5:
                v = params[a, frame]
                k = 0 if math.isnan(v) else 3
            elif op == 6:
                v = float(port)
                k = 0 if port < 0 else 2
            else:
                v = float(length)
                k = 2
            sv[sp] = v
            sk[sp] = k
            continue
        if op == 8:
            pc = a
            continue
        k = np.int64(sk[sp])
        x: Any = sv[sp]
        if op == 9:
            if k < 2 or k == 5:
                sk[sp] = 1 if k == 5 else k
                sv[sp] = np.nan
                pc = b
            else:
                sp -= 1
                if x == 0.0:
                    pc = a
            continue
        if op == 10:
            if k >= 2:
                pc = a
            else:
                sp -= 1
            continue
        if op == 11:
            if k != 0:
                sv[sp] = 1.0 if (k == 1) == (a == 1) else 0.0
                sk[sp] = 4
            continue
        if op < 40:
            if k < 2:
                continue
            if k == 5:
                sv[sp] = np.nan
                sk[sp] = 1
                continue
            r: Any = x
            rk: Any = 2 if k == 4 else k
            if op == 20:
                r = -x if x != 0.0 else 0.0
            elif op == 21:
                r = 1.0 if x == 0.0 else 0.0
                rk = 4
            elif op == 22:
                r = math.fabs(x)
            elif op == 23:
                r = math.sqrt(x) if x >= 0.0 else np.nan
                rk = 3
            elif op == 24:
                r = math.exp(x)
                rk = 3
            elif op == 25:
                r = math.log(x) if x > 0.0 else np.nan
                rk = 3
            elif op == 26:
                r = math.log10(x) if x > 0.0 else np.nan
                rk = 3
            elif op == 27:
                r = np.floor(x)
                rk = 2
            elif op == 28:
                r = np.ceil(x)
                rk = 2
            elif op == 29:
                r = rounded(x, 0)
                rk = 2
            else:
                rk = 2
                if x >= 0.0 and x < 9.2e18 and x == np.floor(x):
                    bits = np.int64(x)
                    r = 0.0
                    while bits != 0:
                        bits &= bits - 1
                        r += 1.0
                else:
                    r = np.nan
            if not math.isfinite(r):
                r = np.nan
                rk = 1
            sv[sp] = r
            sk[sp] = rk
            continue
        # two operands
        y = x
        yk = k
        sp -= 1
        x = sv[sp]
        k = np.int64(sk[sp])
        if op >= 60:  # and, or after Kleene
            if k == 5:
                k = 1
            if yk == 5:
                yk = 1
            stop = 0.0 if op == 60 else 1.0
            xs = k >= 2 and (x != 0.0) == (stop != 0.0)
            ys = yk >= 2 and (y != 0.0) == (stop != 0.0)
            if xs or ys:
                sv[sp] = stop
                sk[sp] = 4
            elif k < 2 or yk < 2:
                sv[sp] = np.nan
                sk[sp] = 0 if k == 0 or yk == 0 else 1
            else:
                sv[sp] = 1.0 - stop
                sk[sp] = 4
            continue
        if k < 2 or yk < 2:
            sv[sp] = np.nan
            sk[sp] = 0 if k == 0 or yk == 0 else 1
            continue
        if op == 54 or op == 55:
            same = x == y and (k == 5) == (yk == 5)
            sv[sp] = 1.0 if same == (op == 54) else 0.0
            sk[sp] = 4
            continue
        if k == 5 or yk == 5:
            sv[sp] = np.nan
            sk[sp] = 1
            continue
        whole = k != 3 and yk != 3
        r = np.nan
        rk = 2 if whole else 3
        if op == 40:
            r = x + y
        elif op == 41:
            r = x - y
        elif op == 42:
            r = x * y
        elif op == 43:
            rk = 3
            if y != 0.0:
                r = x / y
        elif op == 44:
            if y != 0.0:
                r = np.fmod(x, y)
                if r != 0.0 and (r < 0.0) != (y < 0.0):
                    r += y
        elif op == 45:
            if not (x == 0.0 and y < 0.0):
                r = x**y
            if y < 0.0:
                rk = 3
        elif op == 46:
            r = x if x <= y else y
            rk = k if x <= y else yk
            rk = 2 if rk == 4 else rk
        elif op == 47:
            r = x if x >= y else y
            rk = k if x >= y else yk
            rk = 2 if rk == 4 else rk
        elif op == 48:
            if y == np.floor(y) and math.fabs(y) <= 15.0:
                r = rounded(x, np.int64(y))  # type: ignore[arg-type]  # numba's int
            rk = 2 if k != 3 and y >= 0.0 else 3
        elif op < 54:
            rk = 2
            if math.fabs(x) < 9.2e18 and math.fabs(y) < 9.2e18 and x == np.floor(x) and y == np.floor(y):
                ix = np.int64(x)
                iy = np.int64(y)
                if op == 49:
                    r = float(ix & iy)
                elif op == 50:
                    r = float(ix | iy)
                elif op == 51:
                    r = float(ix ^ iy)
                elif iy >= 0:
                    if op == 52:
                        r = x * 2.0 ** min(y, 2000.0) if ix != 0 else 0.0
                    else:
                        r = float(ix >> min(iy, np.int64(63)))
        else:
            rk = 4
            if op == 56:
                r = 1.0 if x < y else 0.0
            elif op == 57:
                r = 1.0 if x <= y else 0.0
            elif op == 58:
                r = 1.0 if x > y else 0.0
            else:
                r = 1.0 if x >= y else 0.0
        if not math.isfinite(r):
            r = np.nan
            rk = 1
        sv[sp] = r
        sk[sp] = rk


@kernel
def run_rows(
    code: Int64,
    constants: Float64,
    starts: Int64,
    targets: Int64,
    value: Float64,
    kind: Bytes,
    params: Float64,
    port: Int64,
    length: Int64,
) -> None:
    """Run programs over rows; starts, targets: int64[K] program and the slot that takes its result.

    value, kind: float64, uint8 [rows, slots], read and written; params: float64[P, rows]; port,
    length: int64[rows].
    """
    sv = np.empty(512, np.float64)
    sk = np.empty(512, np.uint8)
    local = np.empty(1, np.float64)
    local_kind = np.zeros(1, np.uint8)
    outer = np.full(value.shape[0], -1, np.int64)
    for row in range(value.shape[0]):
        for n in range(starts.shape[0]):
            run_program(
                code, constants, starts[n], value, kind, row, outer, local, local_kind, params, row,
                port[row], length[row], sv, sk,
            )  # fmt: skip
            if sk[0] != 0:
                value[row, targets[n]] = sv[0]
                kind[row, targets[n]] = sk[0]


@dataclass(slots=True, eq=False)
class DeriveColumns:
    """`derive:` over columns: `names` are those of the columns that `run` takes, in order, the
    results included (a column with no source of its own starts absent)."""

    names: tuple[str, ...]
    param_names: tuple[str, ...]
    texts: dict[int, str]
    code: Int64
    constants: Float64
    starts: Int64
    targets: Int64

    def run(
        self, value: Float64, quality: Bytes, params: Float64, kinds: Bytes | None = None
    ) -> tuple[Float64, Bytes]:
        """value: float64[M, N], quality: uint8[M, N] (ABSENT: not there, BAD and worse: null);
        params: float64[P, N] in the order of `param_names`; kinds: uint8[M] INT | FLOAT | BOOL |
        TEXT of the columns given (default FLOAT). Returns new columns in which the results stand:
        a result is GOOD, UNCERTAIN where a value of its reading was, NaN and BAD where null.
        """
        rows = value.shape[1]
        known = np.full(len(self.names), FLOAT, np.uint8) if kinds is None else kinds
        state = np.where(quality == Q_ABSENT, ABSENT, np.where(quality >= BAD, NULL, known[:, None]))
        state = np.where((quality <= UNCERTAIN) & np.isnan(value), NULL, state)
        flat = np.ascontiguousarray(value.T)
        kind = np.ascontiguousarray(state.T.astype(np.uint8))
        if not len(self.param_names):
            params = np.empty((1, rows), np.float64)
        port = np.full(rows, -1, np.int64)
        length = np.zeros(rows, np.int64)
        run_rows(
            self.code, self.constants, self.starts, self.targets, flat, kind,
            np.ascontiguousarray(params), port, length,
        )  # fmt: skip
        out_value, out_quality = value.copy(), quality.copy()
        doubtful = (quality == UNCERTAIN).any(axis=0)
        for target in dict.fromkeys(self.targets.tolist()):
            column, states = flat[:, target], kind[:, target]
            out_value[target] = np.where(states >= INT, column, np.nan)
            good = np.where(doubtful, UNCERTAIN, GOOD)
            out_quality[target] = np.where(states == ABSENT, Q_ABSENT, np.where(states == NULL, BAD, good))
        return out_value, out_quality


def derive_columns(derive: Mapping[str, Expr], names: Sequence[str]) -> DeriveColumns:
    """Compile `derive:` (in file order) over named columns; results are appended to the names.

    Names are bare, `metrics.x` means `x`; a name that is no column is absent.
    """
    columns = list(names)
    columns.extend(name for name in derive if name not in columns)
    params: list[str] = []
    from operators.expression.tree import walk

    for tree in derive.values():
        for part in walk(tree):
            if isinstance(part, Name) and part.root == "param" and ".".join(part.parts) not in params:
                params.append(".".join(part.parts))
    programs = Programs(params)

    def lookup(name: Name) -> Sequence[Source]:
        wanted = ".".join(name.parts)
        return [("row", columns.index(wanted))] if wanted in columns else []

    starts = [programs.add(tree, lookup) for tree in derive.values()]
    code, constants = programs.tables()
    targets = [columns.index(name) for name in derive]
    return DeriveColumns(
        tuple(columns),
        tuple(params),
        programs.texts,
        code,
        constants,
        np.array(starts, np.int64),
        np.array(targets, np.int64),
    )


def empty_params(rows: int) -> npt.NDArray[np.float64]:
    """The params of a product that has none."""
    return np.empty((1, rows), np.float64)


def warm_up() -> None:
    """Compile the kernels."""
    ready = derive_columns(
        {"y": Binary(0, 0, "+", Name(0, 0, "", ("x",), "x"), Number(0, 0, 1.0, "1"))}, ["x"]
    )
    ready.run(np.zeros((2, 1)), np.zeros((2, 1), np.uint8), empty_params(1))
