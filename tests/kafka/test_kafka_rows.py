"""Messages as columns: cut into what entries of the journal hold, whatever is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from confluent_kafka import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.journal.entries import TABLE_BYTES, pack_address
from connectors.kafka import rows as module
from connectors.kafka.config import KafkaConfig
from connectors.kafka.progress import Range
from connectors.kafka.rows import Addressing, rows_of
from operators.batch import Address

messages = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, 1),
        st.one_of(st.none(), st.binary(max_size=40)),
        st.one_of(st.none(), st.binary(max_size=6)),
        st.lists(
            st.tuples(st.sampled_from(["x", "y"]), st.one_of(st.none(), st.binary(max_size=5))), max_size=2
        ),
        st.integers(1, 3),  # how far behind the one before, of its partition
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(found=messages, rows_most=st.integers(1, 9), bytes_most=st.integers(1, 100), cap=st.integers(1, 40))
def test_columns_hold_every_message_in_order_and_say_which_offsets_they_are_of(
    found: list[tuple[Any, ...]], rows_most: int, bytes_most: int, cap: int
) -> None:
    kept = module.ENTRY_ROWS, module.ENTRY_BYTES
    module.ENTRY_ROWS, module.ENTRY_BYTES = rows_most, bytes_most  # type: ignore[misc]
    try:
        check(found, rows_most, bytes_most, cap)
    finally:
        module.ENTRY_ROWS, module.ENTRY_BYTES = kept  # type: ignore[misc]


def check(found: list[tuple[Any, ...]], rows_most: int, bytes_most: int, cap: int) -> None:
    first = {(topic, part): 100 for topic in "ab" for part in (0, 1)}
    following = dict(first)
    made, wanted = [], []
    for topic, part, value, key, headers, step in found:
        offset = following[topic, part] + step - 1  # holes are no gap
        following[topic, part] = offset + 1
        made.append(Message(topic, part, offset, key, value, headers or None))
        told = [("key", text(key))] if key is not None else []
        told += [(name, text(one or b"")) for name, one in headers]
        if len(value or b"") > cap:
            told.append(("too_large", f"{len(value)} bytes; max_frame allows {cap}"))
        wanted.append(((topic, -1, tuple(told)), value or b""))
    config = KafkaConfig(bootstrap="k:1", topics=["a", "b"], max_frame=cap)
    taken = rows_of(made, lambda topic, part: first[topic, part], Addressing(config))
    come: list[Any] = []
    at = dict(first)
    for rows, ranges in taken:
        assert 1 <= len(rows) <= rows_most
        assert len(rows) == 1 or len(rows.payload) <= bytes_most
        here = [(rows.addresses[frame], rows) for frame in rows.where.tolist()]
        come += [(address, frame.payload) for (address, _), frame in zip(here, rows.frames(), strict=True)]
        for one in ranges:
            assert one == Range(one.topic, one.partition, at[one.topic, one.partition], one.next)
            at[one.topic, one.partition] = one.next
    assert come == wanted
    assert at == following


def text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.hex()


def test_addresses_that_fill_an_entry_end_it() -> None:
    """Each message has headers of its own, as large as they may be."""
    addressing = Addressing(KafkaConfig(bootstrap="k:1", topics="a"))
    big = [
        Message("a", 0, at, b"", b"1", [(f"h{n}", b"\xc3\xa4" * 1000 + b"%d" % at) for n in range(32)])
        for at in range(200)
    ]
    taken = rows_of(big, lambda topic, part: 0, addressing)
    assert sum(len(rows) for rows, _ in taken) == 200
    assert len(taken) > 1
    for rows, _ in taken:
        table = sum(len(pack_address(Address("fleet", *one))) + 4 for one in rows.addresses)
        assert table <= TABLE_BYTES
        assert np.array_equal(rows.lengths, np.ones(len(rows), np.uint32))
    assert addressing.cut == 200  # the key takes one of the 32 places
