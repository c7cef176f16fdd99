"""Metrics of several values: templates, data sets, arrays; and bodies that are compressed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.mqtt.sparkplug.metrics import MOST_DEEP
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType, Payload
from operators.batch import FRAME_HISTORICAL
from tests.reference import sparkplug_parts
from tests.sparkplug.edge import put
from tests.sparkplug.test_messages import Listener, T

BIRTH, DATA = "spBv1.0/g/NBIRTH/n", "spBv1.0/g/NDATA/n"


def fill(metric: Any, shape: Any) -> None:
    """A shape of `tests.reference.sparkplug_parts` as the value of a metric."""
    if isinstance(shape, dict) and "template" in shape:
        metric.datatype = DataType.Template
        metric.template_value.template_ref = "some"
        metric.template_value.is_definition = False
        for name, below in shape["template"]:
            fill(metric.template_value.metrics.add(name=name), below)
    elif isinstance(shape, dict) and "table" in shape:
        metric.datatype = DataType.DataSet
        columns, rows = shape["table"]
        table = metric.dataset_value
        table.num_of_columns = len(columns)
        table.columns.extend(columns)
        table.types.extend([DataType.Double] * len(columns))
        for row in rows:
            added = table.rows.add()
            for value in row:
                element = added.elements.add()
                if value is not None:
                    element.double_value = value
    elif isinstance(shape, dict):
        metric.datatype = DataType.DoubleArray
        metric.bytes_value = b"".join(map(double, shape["array"]))
    else:
        metric.datatype = DataType.Double
        put(metric, "Double", shape)


def double(value: float) -> bytes:
    payload = Payload.Metric(double_value=value)
    return bytes(payload.SerializeToString()[1:])  # a key of one byte, then eight, little-endian


def message(seq: int, metrics: list[tuple[str, Any]], at_ms: int = T) -> bytes:
    payload = Payload(timestamp=at_ms, seq=seq)
    for name, shape in metrics:
        fill(payload.metrics.add(name=name), shape)
    return bytes(payload.SerializeToString())


PRESS = {
    "template": [
        ("Temp", 20.5),
        ("Motor", {"template": [("rpm", 300.0), ("Winding", {"array": [1.0, 2.0]})]}),
        ("Recipe", {"table": (["step", "seconds"], [[1.0, 5.0], [2.0, None]])}),
    ]
}


def test_templates_data_sets_and_arrays_are_taken_apart() -> None:
    listener = Listener()
    assert listener.hear((BIRTH, message(0, [("Press", PRESS), ("level", 7.0)]))) == [
        (
            "g/NBIRTH/n",
            [
                ("Press/Temp", 20.5, T, "good"),
                ("Press/Motor/rpm", 300.0, T, "good"),
                ("Press/Motor/Winding/0", 1.0, T, "good"),
                ("Press/Motor/Winding/1", 2.0, T, "good"),
                ("Press/Recipe/step", 1.0, T, "good"),
                ("Press/Recipe/seconds", 5.0, T, "good"),
                ("Press/Recipe/1/step", 2.0, T, "good"),
                ("Press/Recipe/1/seconds", None, T, "good"),
                ("level", 7.0, T, "good"),
            ],
            0,
        )
    ]
    # some members of a template, a shorter data set, an array of another length
    data = {
        "template": [("Motor", {"template": [("rpm", 310.0)]}), ("Recipe", {"table": (["step"], [[3.0]])})]
    }
    assert listener.hear((DATA, message(1, [("Press", data)], T + 1))) == [
        (
            "g/NDATA/n",
            [
                ("Press/Motor/rpm", 310.0, T + 1, "good"),
                ("Press/Recipe/step", 3.0, T + 1, "good"),
                ("Press/Recipe/seconds", None, T + 1, "good"),
                ("Press/Recipe/1/step", None, T + 1, "good"),
                ("Press/Recipe/1/seconds", None, T + 1, "good"),
            ],
            0,
        )
    ]
    longer = {"template": [("Motor", {"template": [("Winding", {"array": [3.0, 4.0, 5.0]})]})]}
    assert len(listener.hear((DATA, message(2, [("Press", longer)], T + 2)))[0][1]) == 3
    assert listener.asked() == []  # nothing of it was unknown
    (death,) = listener.hear(("spBv1.0/g/NDEATH/n", b"\x18\x00"))
    assert [name for name, value, _, quality in death[1] if (value, quality) == (None, "bad")] == [
        *("Press/Temp", "Press/Motor/rpm", "Press/Motor/Winding/0", "Press/Motor/Winding/1"),
        *("Press/Recipe/step", "Press/Recipe/seconds", "Press/Recipe/1/step", "Press/Recipe/1/seconds"),
        *("level", "Press/Motor/Winding/2"),
    ]


def test_members_have_types_aliases_times_and_qualities_of_their_own() -> None:
    listener = Listener()
    birth = Payload(timestamp=T, seq=0)
    definition = birth.metrics.add(name="_types_/Press", datatype=DataType.Template)
    definition.template_value.is_definition = True
    definition.template_value.metrics.add(name="rpm", datatype=DataType.Int16)
    press = birth.metrics.add(name="Press", alias=1, datatype=DataType.Template)
    press.template_value.template_ref = "Press"
    press.template_value.parameters.add(name="size", type=DataType.Int32, int_value=5)
    put(press.template_value.metrics.add(name="rpm", alias=2, datatype=DataType.Int16), "Int16", -7)
    put(press.template_value.metrics.add(name="mode", datatype=DataType.String), "String", "idle")
    assert listener.hear((BIRTH, birth.SerializeToString())) == [
        ("g/NBIRTH/n", [("Press/rpm", -7.0, T, "good"), ("Press/mode", "idle", T, "good")], 0)
    ]
    data = Payload(timestamp=T + 9, seq=1)
    press = data.metrics.add(alias=1, timestamp=T + 5)
    press.properties.keys.append("Quality")
    press.properties.values.add(type=DataType.Int32, int_value=64)
    put(press.template_value.metrics.add(alias=2), "Int16", -300)
    mode = press.template_value.metrics.add(name="mode", timestamp=T + 4)
    put(mode, "String", "run")
    put(press.template_value.metrics.add(alias=7), "Int16", 1)
    found = listener.hear((DATA, data.SerializeToString()))
    assert found == [
        (
            "g/NDATA/n",
            [("Press/mode", "run", T + 4, "uncertain"), ("Press/rpm", -300.0, T + 5, "uncertain")],
            0,
        ),
        ("g/NDATA/n", "alias 7: no birth of n told of it", 0),
    ]
    null = Payload(timestamp=T + 10, seq=2)
    null.metrics.add(alias=1, is_null=True, is_historical=True)
    assert listener.hear((DATA, null.SerializeToString())) == [
        (
            "g/NDATA/n",
            [("Press/rpm", None, T + 10, "good"), ("Press/mode", None, T + 10, "good")],
            FRAME_HISTORICAL,
        )
    ]


ARRAYS = [
    ("Int8Array", b"\xef\x7b", [-17.0, 123.0]),
    ("Int16Array", b"\xd0\x8a\x30\x75", [-30000.0, 30000.0]),
    ("UInt32Array", b"\x34\x00\x00\x00\xff\xff\xff\xff", [52.0, 4294967295.0]),
    ("FloatArray", b"\x00\x00\x80\x3f", [1.0]),
    ("DateTimeArray", b"\xc7\xd0\x90\x75\x24\x01\x00\x00", [1256102875335.0]),
    ("BooleanArray", b"\x0c\x00\x00\x00\x34\xd0", [*map(bool, map(int, "001101001101"))]),
    ("StringArray", b"ABC\0hello\0", ["ABC", "hello"]),
]
"""The examples of the specification, where it has one."""


@pytest.mark.parametrize(("datatype", "data", "values"), ARRAYS)
def test_arrays_by_type(datatype: str, data: bytes, values: list[Any]) -> None:
    listener, birth = Listener(), Payload(timestamp=T, seq=0)
    birth.metrics.add(name="a", datatype=DataType.Value(datatype), bytes_value=data)
    ((_, found, _),) = listener.hear((BIRTH, birth.SerializeToString()))
    assert found == [(f"a/{number}", value, T, "good") for number, value in enumerate(values)]


def deep(levels: int) -> Any:
    return {"template": [("a", deep(levels - 1))]} if levels else 1.0


def column_short() -> Payload:
    payload = Payload(timestamp=T, seq=0)
    fill(payload.metrics.add(name="t"), {"table": (["a", "b"], [[1.0, 2.0]])})
    del payload.metrics[0].dataset_value.rows[0].elements[1]
    return payload


def type_short() -> Payload:
    payload = column_short()
    del payload.metrics[0].dataset_value.types[1]
    return payload


def metric(**keys: Any) -> Payload:
    payload = Payload(timestamp=T, seq=0)
    payload.metrics.add(**keys)
    return payload


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (column_short(), "row 0 of data set 't' has 1 values in 2 columns"),
        (type_short(), "data set 't' has 2 columns and 1 types"),
        (
            Payload.FromString(message(0, [("t", deep(MOST_DEEP + 1))])),
            f"metric 't{'/a' * MOST_DEEP}' is a template within {MOST_DEEP} others",
        ),
        (
            metric(name="a", datatype=DataType.Int32Array, bytes_value=b"abcde"),
            "array 'a' has 5 bytes, no multiple of 4",
        ),
        (metric(name="a", datatype=DataType.StringArray, bytes_value=b"abc"), "array 'a' ends within a text"),
        (
            metric(name="a", datatype=DataType.BooleanArray, bytes_value=b"\x09\0\0\0\xff"),
            "array 'a' has 5 bytes, which do not hold its 9 booleans",
        ),
        (
            metric(name="a", datatype=DataType.StringArray, bytes_value=b"\xff\0"),
            "array 'a' holds a text that is not valid UTF-8",
        ),
    ],
)
def test_what_cannot_be_read_of_a_message_rejects_it_and_the_rest_is_taken(
    payload: Payload, why: str
) -> None:
    listener = Listener()
    payload.metrics.add(name="level", datatype=DataType.Double, double_value=7.0)
    data = payload.SerializeToString()
    values, reject = listener.sparkplug.take(BIRTH, data)
    assert reject.payload == data
    assert reject.headers == (("malformed", why),)
    assert values.headers == ()
    assert listener.sparkplug.counts["malformed_total"] == 1


NUMBER = st.none() | st.floats(-1e9, 1e9)
ARRAY = st.builds(lambda values: {"array": values}, st.lists(st.floats(-1e9, 1e9), max_size=3))
TABLE = st.builds(
    lambda columns, rows: {"table": (columns, [row[: len(columns)] for row in rows])},
    st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True),
    st.lists(st.lists(st.none() | st.floats(-9, 9), min_size=3, max_size=3), max_size=3),
)


def members(templates: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Metrics by name; a metric of a name has one kind for ever, as the specification demands."""
    kinds = [("ab", NUMBER), ("c", ARRAY), ("d", TABLE), ("ef", templates)]
    one = st.one_of(*(st.tuples(st.sampled_from(names), kind) for names, kind in kinds))
    return st.lists(one, max_size=4, unique_by=lambda member: member[0])


def template(told: Any) -> Any:
    return {"template": told}


METRICS = members(members(members(st.just(template([]))).map(template)).map(template))


def wholes(name: str, shape: Any) -> list[str]:
    if not isinstance(shape, dict):
        return []
    if "template" not in shape:
        return [name]
    return [path for member, below in shape["template"] for path in wholes(f"{name}/{member}", below)]


@settings(max_examples=200, deadline=None)
@given(METRICS, st.lists(METRICS, max_size=3))
def test_what_a_device_has_last_is_what_its_messages_say(birth: Any, messages: Any) -> None:
    """Against the plain way: a birth, then data of any shape."""
    listener = Listener()
    known: dict[str, Any] = {}
    mine: dict[str, Any] = {}
    for number, metrics in enumerate([birth, *messages]):
        frames = listener.hear((DATA if number else BIRTH, message(number, metrics, T + number)))
        told = [(name, value) for _, values, _ in frames for name, value, *_ in values]
        expected = [part for name, shape in metrics for part in sparkplug_parts.parts(name, shape)]
        assert told[: len(expected)] == expected
        whole = [path for name, shape in metrics for path in wholes(name, shape)] if number else []
        known = sparkplug_parts.after(known, expected, whole)
        mine |= dict(told)
        assert mine == known


# compressed bodies


def compressed(body: bytes, algorithm: str | None, **keys: Any) -> bytes:
    payload = Payload(uuid="SPBV1.0_COMPRESSED", body=body, **keys)
    if algorithm is not None:
        payload.metrics.add(name="algorithm", datatype=DataType.String, string_value=algorithm)
    return bytes(payload.SerializeToString())


INNER = message(0, [("a", 1.5)])


@pytest.mark.parametrize(
    ("body", "algorithm"),
    [
        (zlib.compress(INNER), "DEFLATE"),
        (gzip.compress(INNER), "GZIP"),
        (zlib.compress(INNER), None),
        (gzip.compress(INNER), None),
    ],
    ids=["deflate", "gzip", "deflate unsaid", "gzip unsaid"],
)
def test_a_compressed_body_is_the_payload_in_it(body: bytes, algorithm: str | None) -> None:
    found = Listener().hear((BIRTH, compressed(body, algorithm)))
    assert found == [("g/NBIRTH/n", [("a", 1.5, T, "good")], 0)]


def test_number_and_time_may_stand_outside() -> None:
    inner = Payload()
    fill(inner.metrics.add(name="a"), 1.5)
    body = zlib.compress(inner.SerializeToString())
    listener = Listener()
    found = listener.hear((BIRTH, compressed(body, "DEFLATE", seq=7, timestamp=T + 3)))
    assert found == [("g/NBIRTH/n", [("a", 1.5, T + 3, "good")], 0)]
    listener.hear((DATA, message(8, [("a", 2.0)])))
    listener.wait(5)
    assert listener.sparkplug.counts["gaps_total"] == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (
            compressed(zlib.compress(INNER), "LZ4"),
            "its body is compressed as 'LZ4'; DEFLATE and GZIP are read",
        ),
        (compressed(INNER, "GZIP"), "its body is not compressed as GZIP"),
        (compressed(b"\x78", None), "its compressed body ends too early"),
        (compressed(zlib.compress(INNER)[:-1], "DEFLATE"), "its compressed body ends too early"),
        (compressed(zlib.compress(INNER) + b"ab", "DEFLATE"), "2 bytes stand behind its compressed body"),
        (compressed(zlib.compress(b"\xff\xff"), "DEFLATE"), "its bytes are no protobuf"),
        (
            compressed(zlib.compress(compressed(zlib.compress(INNER), None)), None),
            "its body is compressed within a compressed body",
        ),
    ],
    ids=range(7),
)
def test_a_body_that_cannot_be_unpacked_is_kept_as_it_came(data: bytes, why: str) -> None:
    (frame,) = Listener().sparkplug.take(BIRTH, data)
    assert (frame.payload, frame.headers) == (data, (("malformed", why),))


def test_a_bomb_is_never_unpacked_beyond_the_cap(tmp_path: Path) -> None:
    bomb = zlib.compress(b"\x12\x00" * 5_000_000)
    assert len(bomb) < 20_000
    (frame,) = Listener().sparkplug.take(BIRTH, compressed(bomb, "DEFLATE"))
    why = "more than 1000000 bytes when its body is unpacked; max_payload allows no more"
    assert frame.headers == (("too_large", why),)
