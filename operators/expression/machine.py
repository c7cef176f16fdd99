"""The column machine: a program with its memory, and the past of the devices that it looks at.

A program without operations over the past is a function of its columns alone; `run` then needs
nothing else. One with such operations is given every row that counts for them (accepted, in order,
live), in journal order, whoever uses the result; rows may be cut into runs anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from operators.batch import Bytes, Float64, Int32, Int64
from operators.expression import kernels as k
from operators.expression.registers import Past, Program

_PAGES_AT_FIRST = 256
_OFTEN = 3  # comparisons with constants
_NOBODY = np.empty(0, np.int32)
_NEVER = np.empty(0, np.int64)
_NOTHING = np.empty(0, np.uint8)


class Machine:
    """A program with its scratch memory and its state by device.

    `columns` are filled by the caller before `run`. any_true: uint8[O] of the last run, bit 0 set
    where a result was TRUE in any row. values: float64[V, >= rows] of the last run, the numbers
    that the program stores. over: int64[S], how often each of `program.spans` was unknown because
    its duration held more than its `limit` samples.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.columns: Float64 = np.full((max(1, len(program.columns)), 0), np.nan)
        self.temps: Float64 = np.zeros((max(1, program.temps), k.CHUNK))
        self.temps[: len(program.filled)] = program.filled[:, None]
        self.trits: Bytes = np.zeros((max(1, program.trits), k.CHUNK), np.uint8)
        self.out: Bytes = np.zeros((max(1, program.rows), 0), np.uint8)
        self.values: Float64 = np.zeros((max(1, program.value_rows), 0))
        self.any_true: Bytes = np.zeros(max(1, program.rows), np.uint8)
        self.over: Int64 = np.zeros(len(program.spans), np.int64)
        self._often: Bytes = _compared_often(program)
        self._edges: Int64 = np.zeros((k.EDGES, len(self._often)), np.int64)
        self.devices = 0
        self._resume: Int64 = np.zeros(2, np.int64)
        self._began: Bytes = np.zeros(0, np.uint8)
        self._newest: Int64 = _NEVER
        self._numbers: Float64 = np.zeros((program.past_numbers, 0))
        self._times: Int64 = np.zeros((program.past_times, 0), np.int64)
        self._chains: Int32 = np.zeros((len(program.spans), 0, 4), np.int32)
        self._pages: Int32 = np.array([-1, 0, 0], np.int32)
        self._links: Int32 = np.zeros(0, np.int32)
        self._sample_ns: Int64 = np.zeros((0, k.PAGE), np.int64)
        self._sample: Float64 = np.zeros((0, k.PAGE))

    @property
    def looks_back(self) -> bool:
        """Whether the program holds operations over the past, so that `run` needs to know devices
        and times and must see every row."""
        return bool(self.program.past)

    def room(self, rows: int) -> Float64:
        """The input columns float64[C, >= rows], to be filled for rows 0..rows."""
        if self.columns.shape[1] < rows:
            wide = -(-max(rows, 2 * self.columns.shape[1]) // k.CHUNK) * k.CHUNK
            self.columns = np.full((self.columns.shape[0], wide), np.nan)
        return self.columns

    def grow(self, devices: int) -> None:
        """Room for the past of devices 0..devices; costs nothing where nothing looks back."""
        if not self.looks_back or devices <= self.devices:
            return
        self.devices = max(16, devices, self.devices + self.devices // 2)
        self._newest = _wider(self._newest, self.devices, k.NEVER)
        self._numbers = _wider(self._numbers, self.devices, np.nan)
        self._times = _wider(self._times, self.devices, k.NEVER)
        grown = np.zeros((len(self.program.spans), self.devices, 4), np.int32)
        grown[:, : self._chains.shape[1]] = self._chains
        self._chains = grown

    def run(
        self,
        rows: int,
        columns: Float64 | None = None,
        *,
        local: Int32 | None = None,
        ts_ns: Int64 | None = None,
        flags: Bytes | None = None,
    ) -> Bytes:
        """Results uint8[O, >= rows] of the given columns (default: those of `room`); valid until
        the next run.

        local: int32[rows], each row's device, below what `grow` was told; ts_ns: int64[rows],
        event times; flags: uint8[rows] of readings, of which REBASED counts. All three are needed
        where the program `looks_back`.
        """
        if columns is None:
            columns = self.columns
        if self.out.shape[1] < rows:
            self.out = np.zeros((self.out.shape[0], -(-rows // k.CHUNK) * k.CHUNK), np.uint8)
        if self.program.value_rows and self.values.shape[1] < rows:
            self.values = np.zeros((self.values.shape[0], -(-rows // k.CHUNK) * k.CHUNK))
        if not self.looks_back:
            local, ts_ns, began = _NOBODY, _NEVER, _NOTHING
        else:
            if local is None or ts_ns is None or flags is None:
                raise ValueError("a program that looks back needs the rows' devices, times and flags")
            if len(self._began) < rows:
                self._began = np.zeros(max(rows, 2 * len(self._began)), np.uint8)
            began = self._began[:rows]
            k.beginnings(local, ts_ns, flags, self._newest, began)
        self._resume[:] = 0
        while not k.evaluate(
            self.program.code,
            self.program.constants,
            columns,
            rows,
            self.temps,
            self.trits,
            self.out,
            self.any_true,
            self.values,
            local,
            ts_ns,
            began,
            self.program.past_table,
            self._numbers,
            self._times,
            self._chains,
            self.over,
            self._links,
            self._pages,
            self._sample_ns,
            self._sample,
            self._often,
            self._edges,
            self._resume,
        ):
            self._more_pages(k.CHUNK)
        return self.out

    def _more_pages(self, least: int) -> None:
        """A quarter more pages in the pool of samples, and at least this many."""
        wanted = len(self._links) + max(_PAGES_AT_FIRST, least, len(self._links) // 4)
        used = int(self._pages[k.USED])
        links, times, samples = (
            np.empty(wanted, np.int32),
            np.empty((wanted, k.PAGE), np.int64),
            np.empty((wanted, k.PAGE)),
        )
        links[:used], times[:used], samples[:used] = (
            self._links[:used],
            self._sample_ns[:used],
            self._sample[:used],
        )
        self._links, self._sample_ns, self._sample = links, times, samples

    def overflows(self) -> list[int]:
        """How often each condition, then each value, rested on a duration with more samples than are
        kept, and was unknown (or went without that part) for it."""
        return [int(sum(self.over[span] for span in spans)) for spans in self.program.limits]

    def past_bytes(self) -> int:
        """What the past of all devices takes: state by operation and the pool of samples in use."""
        state = (self._newest, self._numbers, self._times, self._chains)
        page = k.PAGE * 16 + 4
        return sum(array.nbytes for array in state) + int(self._pages[k.USED]) * page

    # -- state

    def export(self, devices: int) -> dict[str, Any]:
        """The past of devices 0..devices, for a snapshot, as views of the live arrays. Operations
        stand under the canonical texts of what they are, so that a changed program finds those that
        are the same."""
        if not self.looks_back:
            return {}
        used = int(self._pages[k.USED])
        return {
            "newest": self._newest[:devices],
            "links": self._links[:used],
            "sample_ns": self._sample_ns[:used],
            "sample": self._sample[:used],
            "operations": [
                {
                    "texts": list(one.texts),
                    "numbers": [self._numbers[one.number + row, :devices] for row in range(one.numbers)],
                    "times": [self._times[one.time + row, :devices] for row in range(one.times)],
                    "chains": self._chains[one.span, :devices] if one.span >= 0 else None,
                    "over": int(self.over[one.span]) if one.span >= 0 else 0,
                }
                for one in self.program.past
            ],
        }

    def load(self, kept: Mapping[str, Any], devices: int) -> None:
        """Take over what `export` gave of the same devices, operation by operation; one that was
        not there begins anew. To be called on a machine that has not run."""
        self.grow(devices)
        if not self.looks_back or not kept:
            return
        self._newest[:devices] = kept["newest"]
        known = {text: then for then in kept["operations"] for text in then["texts"]}
        for one in self.program.past:
            then = next((known[text] for text in one.texts if text in known), None)
            if then is None:
                continue
            for row, numbers in enumerate(then["numbers"]):
                self._numbers[one.number + row, :devices] = numbers
            for row, times in enumerate(then["times"]):
                self._times[one.time + row, :devices] = times
            if one.span >= 0:
                self.over[one.span] = then["over"]
                self._load_samples(self._chains[one.span], kept, then["chains"])

    def _load_samples(self, own: Int32, kept: Mapping[str, Any], chains: Int32) -> None:
        count = chains[:, k.COUNT].copy()
        times, samples = np.empty(int(count.sum()), np.int64), np.empty(int(count.sum()))
        k.unload(chains, kept["links"], kept["sample_ns"], kept["sample"], times, samples)
        needed = int((-(-count.astype(np.int64) // k.PAGE)).sum())
        if len(self._links) - int(self._pages[k.USED]) < needed:
            self._more_pages(needed)
        k.reload(count, times, samples, own, self._links, self._pages, self._sample_ns, self._sample)


def _compared_often(program: Program) -> Bytes:
    """uint8[C]: 1 of each input column that is compared with so many constants that it pays to know its
    least and its most first."""
    op, column = program.code[:, 0], program.code[:, 2]
    asked = column[(op >= k.LTC) & (op <= k.NEC) & (column < len(program.columns))]
    counts = np.bincount(asked, minlength=max(1, len(program.columns)))
    return (counts >= _OFTEN).astype(np.uint8)


def _wider(state: Any, devices: int, fill: float) -> Any:
    grown = np.full((*state.shape[:-1], devices), fill, state.dtype)
    grown[..., : state.shape[-1]] = state
    return grown


def constant(op: int, a: float, b: float) -> float:
    """An operation on two constants, as the kernel does it; NaN = unknown."""
    # columns: the first operand; temporary rows: 1 the result, 2 the second operand
    code = np.array([[op, 1, 0, 2, 0], [k.STORE, 0, 1, 0, 0]], np.int32)
    columns = np.array([[a]], np.float64)
    machine = Machine(
        Program(
            code, (), np.zeros(0), np.array([0.0, b]), 3, 1, (), 0, (0,), 1, (), np.zeros((0, 11), np.int64)
        )
    )
    machine.run(1, columns)
    return float(machine.values[0, 0])


def warm_up() -> None:
    """Compile the kernels for the types of the hot path."""
    table = np.full((1, 5 + len(k.FOLDS)), -1, np.int64)
    table[0, :5] = 0, 0, 0, 1, 1
    past = Past(k.SPAN, 0, 0, 0, 1, 0, ("warm",))
    code = np.array([[k.SPAN, 0, 0, 0, 0]], np.int32)
    program = Program(code, (), np.zeros(0), np.zeros(0), 1, 1, (), 0, (), 0, (past,), table)
    machine = Machine(program)
    machine.grow(1)
    machine.run(
        1,
        np.zeros((1, 1)),
        local=np.zeros(1, np.int32),
        ts_ns=np.zeros(1, np.int64),
        flags=np.zeros(1, np.uint8),
    )
    Machine(program).load(machine.export(1), 1)
