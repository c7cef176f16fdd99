"""Entries: packed, read and merged as they were."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import JournalError
from connectors.journal import entries
from connectors.journal.entries import (
    Addresses,
    Entry,
    check_frames,
    decode_entry,
    pack_control,
    pack_frames,
    pack_tick,
    split,
    stamp,
)
from connectors.journal.merging import Merger, merge
from connectors.source import Frame
from operators.batch import Address, BookedAddresses

TEXT = st.text(max_size=8)
FRAMES = st.lists(
    st.builds(
        Frame,
        topic=TEXT,
        payload=st.binary(max_size=20),
        flags=st.integers(0, 3),
        port=st.integers(-1, 300),
        headers=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


def as_entries(parts: list[list[Frame] | int], start: int = 5) -> list[Entry]:
    """Frames and ticks (milliseconds), one entry each, from position 100 on."""
    made, position, ms = [], 100, 1000
    for number, part in enumerate(parts, start):
        if isinstance(part, int):
            ms += part
            data = pack_tick(ms, position)
        else:
            body = pack_frames(f"line{number % 2}", part)
            assert check_frames(body, Addresses()) == len(part)
            stamp(body, ms, position)
            position += len(part)
            data = bytes(body)
        made.append(decode_entry(number, data))
    return made


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(FRAMES | st.integers(0, 3000), max_size=6))
def test_merged_entries_hold_every_frame_and_the_last_tick_of_a_run(parts: list[list[Frame] | int]) -> None:
    batch = merge(as_entries(parts))
    expected, ticks, ms = [], {}, 1000
    for number, part in enumerate(parts, 5):
        if isinstance(part, int):
            ms += part
            ticks[len(expected)] = ms * 1_000_000
            continue
        for frame in part:
            address = Address(f"line{number % 2}", frame.topic, frame.port, frame.headers)
            expected.append((frame.payload, address, frame.flags, ms * 1_000_000, 100 + len(expected)))
    found = [
        (
            batch.frame(row),
            batch.addresses[batch.address[row]],
            int(batch.flags[row]),
            int(batch.ingest_ns[row]),
            int(batch.position[row]),
        )
        for row in range(len(batch))
    ]
    assert found == expected
    assert dict(zip(batch.ticks.row.tolist(), batch.ticks.ns.tolist(), strict=True)) == ticks
    assert len(set(batch.addresses)) == len(batch.addresses)
    assert batch.payload.flags.c_contiguous
    assert (batch.address.dtype, batch.flags.dtype, batch.offset.dtype) == ("int32", "uint8", "int64")


@settings(deadline=None, max_examples=100, derandomize=True)
@given(FRAMES, st.data())
def test_a_damaged_frames_entry_is_refused_or_still_adds_up(frames: list[Frame], data: st.DataObject) -> None:
    body = pack_frames("line1", frames)
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    del body[data.draw(st.integers(0, len(body))) or len(body) :]
    try:
        count = check_frames(body, Addresses())
    except ValueError:
        return
    assert len(merge([Entry(1, entries.FRAMES, count, 0, 0, bytes(body))])) == count


def test_controls_come_back() -> None:
    body = pack_control("clock_step", {"step_ms": -5000}, 7, 3)
    entry = decode_entry(2, bytes(body))
    assert entry.control() == ("clock_step", 7_000_000, {"step_ms": -5000})
    assert (entry.position, entry.next_position) == (3, 3)
    with pytest.raises(ValueError, match="no control of kind 'stop'"):
        pack_control("stop", {})


def test_an_entry_of_another_version_is_refused() -> None:
    body = bytearray(pack_tick(1, 1))
    body[0] = 9
    with pytest.raises(JournalError) as caught:
        decode_entry(4, bytes(body))
    assert str(caught.value) == "journal entry 4 has format 9.2; this version reads 1.1-1.3"


def test_positions_must_follow_each_other() -> None:
    first, second = as_entries([[Frame("a", b"1")], [Frame("a", b"2")]])
    with pytest.raises(JournalError, match="begins at position 101, not 102"):
        merge([first, second, Entry(9, second.kind, 1, 0, 101, second.data)])


def test_appends_are_split_by_rows_and_bytes() -> None:
    small = [Frame("a", b"x")] * (2 * entries.ENTRY_ROWS + 1)
    assert [len(run) for run in split(small)] == [entries.ENTRY_ROWS, entries.ENTRY_ROWS, 1]
    large = [Frame("a", bytes(entries.ENTRY_BYTES // 2))] * 3 + [Frame("a", bytes(2 * entries.ENTRY_BYTES))]
    assert [len(run) for run in split(large)] == [2, 1, 1]
    with pytest.raises(ValueError, match="16777216 bytes at most"):
        split([Frame("a", bytes(entries.FRAME_BYTES + 1))])


def numbered(count: int, salt: str, size: int = 3) -> list[list[Frame] | int]:
    return [[Frame(f"{salt}/{n + k}", b"x", port=n % 5) for k in range(size)] for n in range(0, count, 2)]


def test_addresses_keep_their_number_however_many_there_are() -> None:
    merger = Merger()
    met: dict[Address, int] = {}
    for salt in ("a", "b" * 9, "c" * 200, "a"):
        for part in numbered(3000, salt):
            batch = merger.merge(as_entries([part]))
            assert isinstance(batch.addresses, BookedAddresses)
            for row, frame in enumerate(part if isinstance(part, list) else []):
                address = batch.addresses[int(batch.address[row])]
                assert address == Address("line1", frame.topic, frame.port)
                number = int(batch.addresses.numbers[batch.address[row]])
                assert met.setdefault(address, number) == number
    assert len(met) == len(merger.book) == len(set(merger.book))


def test_a_book_that_is_full_is_begun_anew() -> None:
    merger = Merger(kept=10)
    books = set()
    for turn in range(12):
        batch = merger.merge(as_entries([[Frame(f"{turn % 4}/{n}", b"x") for n in range(4)]]))
        assert isinstance(batch.addresses, BookedAddresses)
        assert [address.topic for address in batch.addresses] == [f"{turn % 4}/{n}" for n in range(4)]
        books.add(id(batch.addresses.book))
        assert len(merger.book) <= 14
    assert len(books) > 1


def test_batches_with_the_same_addresses_share_them() -> None:
    merger = Merger()
    parts = as_entries([[Frame("a", b"1"), Frame("b", b"2")], [Frame("b", b"1"), Frame("a", b"")]])
    assert merger.merge(parts[:1]).addresses is merger.merge(parts[:1]).addresses
    again = merger.merge(parts[1:])
    assert [again.addresses[int(at)].topic for at in again.address] == ["b", "a"]


@settings(deadline=None, max_examples=100, derandomize=True)
@given(FRAMES, st.data())
def test_a_damaged_entry_on_disk_is_an_error_and_the_next_one_is_read(
    frames: list[Frame], data: st.DataObject
) -> None:
    merger = Merger()
    body = pack_frames("line1", frames)
    at = data.draw(st.integers(4, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    entry = decode_entry(3, bytes(body))
    with contextlib.suppress(JournalError):
        batch = merger.merge([entry])
        assert int((batch.offset + batch.length).max()) <= len(batch.payload)
        assert all(isinstance(batch.addresses[int(where)], Address) for where in batch.address)
    good = merger.merge(as_entries([frames]))
    assert [good.frame(row) for row in range(len(good))] == [frame.payload for frame in frames]
    assert [a.topic for a in map(good.addresses.__getitem__, good.address.tolist())] == [
        frame.topic for frame in frames
    ]
