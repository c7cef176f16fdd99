"""Publish responses as bytes, written by asyncua, read by the kernels: every type, status and time; and
bytes that are none."""

from __future__ import annotations

import datetime
import math
import struct
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.opcua.changes import Changes, Published, UnreadableError, read_published
from connectors.opcua.nodes import Item
from connectors.typed import unpack
from operators.decode.decoders import build_decoder
from operators.decode.spec import ProductDecode
from tests.decode_json.frames import batch, good_spec

ITEMS = [Item(f"i={n}", f"d{n % 3}", f"m{n}") for n in range(6)]
T = ua.VariantType
START = datetime.datetime(2026, 3, 1, 9, tzinfo=datetime.UTC)

VALUES = st.one_of(
    st.booleans().map(lambda v: (v, T.Boolean, float(v))),
    *(
        st.integers(low, high).map(lambda v, kind=kind: (v, kind, float(v)))  # type: ignore[misc]
        for low, high, kind in (
            (-128, 127, T.SByte), (0, 255, T.Byte), (-(2**15), 2**15 - 1, T.Int16), (0, 2**16 - 1, T.UInt16),
            (-(2**31), 2**31 - 1, T.Int32), (0, 2**32 - 1, T.UInt32), (-(2**63), 2**63 - 1, T.Int64),
            (0, 2**64 - 1, T.UInt64),
        )
    ),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda v: (v, T.Float, v)),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda v: (v, T.Double, v)),
    st.text(max_size=6).map(lambda v: (v, T.String, v)),
    st.text(min_size=1, max_size=6).map(lambda v: (ua.LocalizedText(v, "en"), T.LocalizedText, v)),
    st.just((b"\x01\x02", T.ByteString, None)),
    st.just((ua.NodeId("x", 2), T.NodeId, None)),
    st.just((None, T.Null, None)),
    st.just((ua.EUInformation("u", 1, ua.LocalizedText("a"), ua.LocalizedText()), T.ExtensionObject, None)),
    st.just((ua.DataValue(ua.Variant("x", T.String), ua.StatusCode(ua.UInt32(7))), T.DataValue, None)),
    st.just(([ua.Variant(1.5, T.Double), ua.Variant([1, 2], T.Int32), ua.Variant(None)], T.Variant, None)),
)  # fmt: skip
CHANGE = st.tuples(
    st.integers(0, 7), VALUES, st.sampled_from([0, 0x40000000, 0x80340000, 0x480]),
    st.integers(0, 5) | st.none(), st.integers(0, 5) | st.none(), st.booleans(),
)  # fmt: skip


def published(changes: list[Any]) -> bytes:
    """A publish response of asyncua's making."""
    notification = ua.DataChangeNotification()
    for handle, (value, kind, _), status, source, server, array in changes:
        item = ua.MonitoredItemNotification()
        item.ClientHandle = ua.UInt32(handle)
        given = [value] if array and kind != T.Null and not isinstance(value, list) else value
        item.Value = ua.DataValue(
            ua.Variant(given, kind, is_array=isinstance(given, list)),
            ua.StatusCode(ua.UInt32(status)),
            None if source is None else START + datetime.timedelta(seconds=source),
            None if server is None else START + datetime.timedelta(seconds=server),
        )
        notification.MonitoredItems.append(item)
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 7
    response.Parameters.MoreNotifications = False
    response.Parameters.AvailableSequenceNumbers = [1, 2]
    response.Parameters.NotificationMessage.SequenceNumber = 42
    response.Parameters.NotificationMessage.NotificationData = [notification]
    return struct_to_binary(response)


def told(changes: list[Any]) -> dict[tuple[str, str], list[tuple[Any, int]]]:
    """What must come out: (device, metric) -> (value, quality), in the order of their times."""
    found: dict[tuple[str, str], list[tuple[float, Any, int]]] = {}
    for handle, (value, _, plain), status, source, server, _ in changes:
        if handle >= len(ITEMS):
            continue
        quality = {0: 0, 0x40000000: 1, 0x80340000: 2, 0x480: 1}[status]
        if plain is None:
            quality = 2
        at = source if source is not None else server
        item = ITEMS[handle]
        shown = (bool(plain) if isinstance(value, bool) else plain, quality)
        found.setdefault((item.device, item.metric), []).append((-1 if at is None else at, *shown))
    return {key: [one[1:] for one in sorted(values, key=lambda v: v[0])] for key, values in found.items()}


@settings(max_examples=150, deadline=None)
@given(st.lists(CHANGE, max_size=12))
def test_equal_to_what_was_written(changes: list[Any]) -> None:
    body = published(changes)
    found = read_published(body)
    assert (found.subscription, found.number, found.more, found.status) == (7, 42, False, None)
    frames = Changes(ITEMS).frames(found)
    assert frames.values == sum(handle < len(ITEMS) for handle, *_ in changes)
    assert frames.overflows == sum(h < len(ITEMS) and s == 0x480 for h, _, s, *_ in changes)
    assert frames.gone == {h: s for h, _, s, *_ in changes if s == 0x80340000 and h < len(ITEMS)}
    got: dict[tuple[str, str], list[tuple[Any, int]]] = {}
    for kind in ("number", "boolean", "string"):
        kinds = {item.metric: kind for item in ITEMS}
        product = ProductDecode("p", good_spec("format: typed", kinds), tuple(kinds.items()))
        payloads = [one.payload for one in frames.frames]
        decoded = build_decoder(product, 64).decode(
            batch(payloads), np.arange(len(payloads)), np.empty((0, len(payloads)))
        )
        assert not decoded.status.any()
        for n, frame in enumerate(decoded.frame.tolist()):
            for m, item in enumerate(ITEMS):
                quality, value = int(decoded.quality[m, n]), float(decoded.value[m, n])
                if quality in (3, 4) or (math.isnan(value) and kind != "number"):
                    continue
                key = (frames.frames[frame].topic, item.metric)
                shown: Any = None if math.isnan(value) else value
                if kind != "number":
                    shown = decoded.texts[int(value)] if kind == "string" else bool(value)
                got.setdefault(key, []).append((shown, quality))
    expected = told(changes)
    assert {key: sorted(map(repr, values)) for key, values in got.items()} == {
        key: sorted(map(repr, values)) for key, values in expected.items()
    }


@settings(max_examples=300, deadline=None)
@given(st.lists(CHANGE, min_size=1, max_size=4), st.data())
def test_broken_bytes_are_refused_or_read(changes: list[Any], data: st.DataObject) -> None:
    broken = bytearray(published(changes))
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    part = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    try:
        frames = Changes(ITEMS).frames(read_published(part))
    except UnreadableError:
        return
    for one in frames.frames:
        assert one.payload[:4] == b"PTV1"


def test_a_gap_makes_values_uncertain() -> None:
    body = published([(0, (1.5, T.Double, 1.5), 0, 1, 1, False)])
    good = Changes(ITEMS).frames(read_published(body)).frames[0].payload
    doubtful = Changes(ITEMS).frames(read_published(body), after_gap=True).frames[0].payload
    assert (good[-1], doubtful[-1]) == (0, 1)
    assert good[:-1] == doubtful[:-1]


def test_a_count_beyond_the_bytes_is_refused() -> None:
    body = b"\xff\xff\xff\x7f" + bytes(8)
    with pytest.raises(UnreadableError, match="a data change that cannot be read"):
        Changes(ITEMS).frames(Published(body, 1, 1, False, ((0, len(body)),)))


def change(value: bytes, metric: int = 0) -> bytes:
    """A response with a Variant as bytes, and a Double behind it."""
    return struct.pack("<iIB", 2, metric, 1) + value + struct.pack("<IBBd", 1, 1, 11, 2.5)


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (b"\x19" + b"\x41" + b"\1\0\0\0" + b"\x10\2\0\0\0ab", True),  # DiagnosticInfo in DiagnosticInfo
        (b"\x98\2\0\0\0" + b"\x0b" + bytes(8) + b"\x98\1\0\0\0\x01\1", True),  # Variants in Variants
        (b"\xd8\1\0\0\0" + b"\x01\1" + b"\1\0\0\0\1\0\0\0", True),  # with dimensions
        (b"\x17\x3d" + b"\x06\7\0\0\0" + bytes(8 + 2 + 8 + 2), True),  # a DataValue without status
        (b"\x1f\3\0\0\0abc", True),  # a type of a later version
        (b"\x20", False),
        (b"\x18" * 200 + b"\x01\1", False),  # deeper than anybody means
        (b"\x98\xff\xff\xff\x7f\x01\1", False),
    ],
)  # fmt: skip
def test_values_in_values(value: bytes, good: bool) -> None:
    body = change(value)
    told = Published(body, 1, 1, False, ((0, len(body)),))
    if not good:
        with pytest.raises(UnreadableError, match="a data change that cannot be read"):
            Changes(ITEMS).frames(told)
        return
    frames = Changes(ITEMS).frames(told).frames
    assert [frame.topic for frame in frames] == ["d0", "d1"]
    assert frames[0].payload[-2:] == b"\0\0"  # null
    assert frames[1].payload[-12:] == struct.pack("<dHBB", 2.5, 0, 1, 0)


def test_texts_and_frames_have_a_cap() -> None:
    texts = ["a" * 300, "b" * 5000, "c" * 300, "d" * 300]
    changes = [(0, (text, T.String, text), 0, n + 1, 1, False) for n, text in enumerate(texts)]
    told = Changes(ITEMS, 1000).frames(read_published(published(changes)))
    assert [len(frame.payload) <= 1000 for frame in told.frames[:-1]] == [True, True]
    held = b"".join(frame.payload for frame in told.frames[:-1])
    assert [held.count(text.encode()) for text in texts] == [1, 0, 1, 1]
    assert told.frames[-1].headers == (("too_large", "a text of 5000 bytes of 'm0'; max_frame allows 1000"),)
    assert told.frames[-1].payload == b"b" * 4096
    assert (told.values, told.too_large) == (4, 1)


def test_more_values_than_a_frame_holds() -> None:
    changes = [(n % 6, (float(n), T.Double, float(n)), 0, 1, 1, False) for n in range(70_000)]
    told = Changes(ITEMS).frames(read_published(published(changes)))
    assert told.values == 70_000
    counts = [struct.unpack_from("<I", frame.payload, 4)[0] for frame in told.frames]
    assert sum(counts) == 70_000
    assert max(counts) <= 8192


@pytest.mark.parametrize("ticks", [(1 << 63) - 1, -5, 0, 2_650_467_743_990_000_000])
def test_times_that_no_clock_shows(ticks: int) -> None:
    """The year 9999 and the years before 1601 are no time: the server's stands in."""
    server = 133_000_000_000_000_000
    body = struct.pack("<iIBBdqq", 1, 0, 1 | 4 | 8, 11, 2.5, ticks, server)
    (frame,) = Changes(ITEMS).frames(Published(body, 1, 1, False, ((0, len(body)),))).frames
    (value,) = unpack(frame.payload)
    assert (value.time_ns, value.server_ns) == (0, (server - 116_444_736_000_000_000) * 100)
