"""State of the stages on disk, in pages: a snapshot writes only what changed since the last one.

A stage's state is a nest as `operators.snapshot.pack` takes it. Its arrays are cut along their first
axis into pages of about PAGE bytes; all else is one page more, the skeleton. `write` compares every
page with the version on disk and writes those that differ under a new generation; it is durable
when it returns. `read` gives the state of a generation back: of every page the newest version that
is not above it.

Who calls `write` keeps the generation where it keeps its own progress (a Bytewax snapshot). Older
versions stay until `settle` says that this progress is durable, so a crash at any moment leaves
the state of the last durable generation whole; what a crash left over goes at the next `read`.

Key: stage | 0 | id of the array, 8 bytes | page u32 | generation u64, big endian.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb
import numpy as np
import numpy.typing as npt

from operators.snapshot import pack, unpack

PAGE: Final = 1 << 16  # bytes
MAP_BYTES: Final = 64 << 30  # of address space; the file grows as it is needed
ARRAY_ID: Final = 8
SKELETON: Final = bytes(ARRAY_ID)
GENERATION: Final = struct.Struct(">Q")
_PAGE_KEY: Final = struct.Struct(f">{ARRAY_ID}sI")
_LAST: Final = b"\xfe"  # the newest generation ever given
_CUT: Final = "\x00cut"  # in a skeleton: [dtype, shape, id] of an array that was cut out

Array = npt.NDArray[Any]


class _Version(NamedTuple):
    """A page that may go once what replaced it is settled."""

    key: bytes
    generation: int


class PageStore:
    """Paged state of the stages of one shard; made if it is not there. One thread."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._env = lmdb.open(str(path), map_size=MAP_BYTES, subdir=True)
        self._newest: dict[bytes, int] = {}  # page -> generation, of stages that were read or written
        self._known: set[str] = set()  # stages whose pages stand in `_newest`
        self._replaced: list[_Version] = []
        with self._env.begin() as txn:
            last = txn.get(_LAST)
        self._generation: int = GENERATION.unpack(last)[0] if last else 0
        self._of_stage: dict[str, int] = {}
        self.written_bytes = 0
        """Bytes of pages written so far, for metrics and tests."""

    def close(self) -> None:
        """Let go of the environment."""
        self._env.close()

    def write(self, stage: str, state: dict[str, Any]) -> int:
        """Write what changed of a stage's state; returns its generation, the same as before where
        nothing did. Raises TypeError for a state that `pack` does not take."""
        prefix = stage.encode() + b"\x00"
        generation = self._generation + 1
        arrays: dict[bytes, Array] = {}
        skeleton = pack(_cut(state, "", arrays))
        present = set()
        changed = False
        with self._env.begin(write=True, buffers=True) as txn:
            self._know(txn, stage, prefix)
            for page, body in _pages(skeleton, arrays):
                key = prefix + page
                present.add(key)
                before = self._newest.get(key)
                if before is not None and _is_same(txn.get(key + GENERATION.pack(before)), body):
                    continue
                changed = True
                txn.put(key + GENERATION.pack(generation), body)
                self.written_bytes += len(body)
                if before is not None:
                    self._replaced.append(_Version(key, before))
                self._newest[key] = generation
            for key in [key for key in self._newest if key.startswith(prefix) and key not in present]:
                self._replaced.append(_Version(key, self._newest.pop(key)))  # the state has shrunk
            if changed:
                txn.put(_LAST, GENERATION.pack(generation))
        if changed:
            self._generation = self._of_stage[stage] = generation
        return self._of_stage.get(stage, generation)

    def read(self, stage: str, generation: int) -> dict[str, Any]:
        """The state of a generation; everything else that is kept of the stage goes.

        Raises LookupError where that generation is not (whole) in the store.
        """
        prefix = stage.encode() + b"\x00"
        with self._env.begin(write=True) as txn:
            newest: dict[bytes, int] = {}
            for key, found in list(_versions(txn, prefix)):
                if found > generation:
                    txn.delete(key + GENERATION.pack(found))
                    continue
                if key in newest:
                    txn.delete(key + GENERATION.pack(newest[key]))
                newest[key] = found
            skeleton = prefix + _PAGE_KEY.pack(SKELETON, 0)
            body = txn.get(skeleton + GENERATION.pack(newest.get(skeleton, 0)))
            if body is None:
                raise LookupError(f"no state of '{stage}' at generation {generation}")
            shape = unpack(body)
            needed = {skeleton}
            state: dict[str, Any] = _joined(shape, prefix, newest, needed, txn)
            for key in newest.keys() - needed:  # of arrays that had become smaller
                txn.delete(key + GENERATION.pack(newest.pop(key)))
        for key in [key for key in self._newest if key.startswith(prefix)]:
            del self._newest[key]
        self._newest.update(newest)
        self._known.add(stage)
        self._of_stage[stage] = generation
        self._replaced = [version for version in self._replaced if not version.key.startswith(prefix)]
        return state

    def settle(self) -> None:
        """Every generation given so far is known durably by whoever asked for it: versions that
        were replaced go."""
        if not self._replaced:
            return
        with self._env.begin(write=True) as txn:
            for version in self._replaced:
                txn.delete(version.key + GENERATION.pack(version.generation))
        self._replaced = []

    def _know(self, txn: Any, stage: str, prefix: bytes) -> None:
        """What a stage left that begins anew is nothing to compare with: it goes."""
        if stage in self._known:
            return
        self._known.add(stage)
        for key, generation in list(_versions(txn, prefix)):
            txn.delete(key + GENERATION.pack(generation))


def _versions(txn: Any, prefix: bytes) -> Iterator[tuple[bytes, int]]:
    """Pages of a stage and their generations, the older of a page first."""
    with txn.cursor() as cursor:
        there = cursor.set_range(prefix)
        while there:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return
            yield key[: -GENERATION.size], GENERATION.unpack(key[-GENERATION.size :])[0]
            there = cursor.next()


def _cut(value: Any, path: str, arrays: dict[bytes, Array]) -> Any:
    """The nest with its arrays cut out; they are put into `arrays` by id."""
    if isinstance(value, dict):
        return {key: _cut(below, f"{path}\x1f{key}", arrays) for key, below in value.items()}
    if isinstance(value, np.ndarray) and value.ndim and value.nbytes:
        identifier = hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=ARRAY_ID).digest()
        arrays[identifier] = value
        return {_CUT: [value.dtype.str, list(value.shape), identifier]}
    return value


def _rows_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Rows of one page: from the shape of a row alone, so that a growing array keeps its pages."""
    row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    return max(1, PAGE // max(1, row))


def _pages(skeleton: bytes, arrays: dict[bytes, Array]) -> Iterator[tuple[bytes, Any]]:
    yield _PAGE_KEY.pack(SKELETON, 0), skeleton
    for identifier, array in arrays.items():
        rows = _rows_of(array.shape, array.dtype)
        for number, start in enumerate(range(0, len(array), rows)):
            page = np.ascontiguousarray(array[start : start + rows])
            yield _PAGE_KEY.pack(identifier, number), page.reshape(-1).view(np.uint8).data


def _is_same(stored: Any, body: Any) -> bool:
    return (
        stored is not None
        and len(stored) == len(body)
        and bool(np.array_equal(np.frombuffer(stored, np.uint8), np.frombuffer(body, np.uint8)))
    )


def _joined(value: Any, prefix: bytes, newest: dict[bytes, int], needed: set[bytes], txn: Any) -> Any:
    """The nest of a skeleton with its arrays put together again."""
    if not isinstance(value, dict):
        return value
    if _CUT not in value:
        return {key: _joined(below, prefix, newest, needed, txn) for key, below in value.items()}
    text, shape, identifier = value[_CUT]
    array = np.empty(tuple(shape), np.dtype(text))
    rows = _rows_of(array.shape, array.dtype)
    for number, start in enumerate(range(0, len(array), rows)):
        key = prefix + _PAGE_KEY.pack(identifier, number)
        needed.add(key)
        body = txn.get(key + GENERATION.pack(newest[key])) if key in newest else None
        page = array[start : start + rows]
        if body is None or len(body) != page.nbytes:
            raise LookupError("a page of the stages' state is not there")
        page[...] = np.frombuffer(body, array.dtype).reshape(page.shape)
    return array
