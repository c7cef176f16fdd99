"""Each construct of docs/decode.md by example (`constructs.yaml`): what the layout gives, and that
the plain interpreter agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.decode.binary_decoder import layout_of
from operators.decode.explain import Answer, Frame, explain
from tests.decode_binary.test_reference import ARRIVAL, compare

EXAMPLES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "constructs.yaml").read_text())


def answer_of(example: dict[str, Any]) -> Answer:
    """The kernel's answer, after a look at the plain one's."""
    payload, port = bytes.fromhex(example["frame"]), example.get("port")
    compare(example["layout"], payload, port)
    frame = Frame(payload, -1 if port is None else port, ARRIVAL)
    return explain(layout_of(example["layout"]), [frame])[0]


@pytest.mark.parametrize("example", EXAMPLES, ids=[example["name"] for example in EXAMPLES])
def test_example(example: dict[str, Any]) -> None:
    answer = answer_of(example)
    if "reject" in example:
        assert answer.readings == []
        assert answer.reject is not None
        assert list(answer.reject[:2]) == example["reject"]
        return
    assert answer.reject is None
    if "one" in example:
        assert len(answer.readings) == 1
        metrics = answer.readings[0][1]
        assert metrics == example["one"]
        for name, value in example["one"].items():
            assert isinstance(metrics[name], bool) == isinstance(value, bool), name
    else:
        times = [(ARRIVAL if ts is None else ts, metrics) for ts, metrics in example["many"]]
        assert answer.readings == times


def test_an_ignored_frame_gives_nothing() -> None:
    (answer,) = explain(
        layout_of("cases: [{when: {byte: {0: 1}}, ignore: true}, {else: {}}]"), [Frame(b"\x01")]
    )
    assert answer.ignored
    assert answer.as_object() == {"readings": []}


def test_a_failed_check_can_flag() -> None:
    text = "check: {sum8: {at: -1}, on_fail: flag}\nfields: {a: {}}"
    good, bad = explain(layout_of(text), [Frame(b"\x01\x01"), Frame(b"\x01\x02")])
    assert (good.uncertain, bad.uncertain) == (False, True)
    assert bad.readings[0][1] == {"a": 1}


def test_hostile_counts_end() -> None:
    text = "fields: {_n: {as: u32}}\nsections: {list: [{count: _n, derive: {a: '1'}}]}"
    (answer,) = explain(layout_of(text), [Frame(b"\xff\xff\xff\xff")])
    assert answer.reject is not None
    assert answer.reject[0] == "malformed"


def test_many_records_make_room() -> None:
    text = "record: log\nrecords: {log: {count: rest, fields: {v: {as: u8}, t: {at: 0, text: hex, size: 1}}}}"
    payload = bytes(range(256)) * 200
    first, second = explain(layout_of(text), [Frame(payload), Frame(b"\x07")])
    assert len(first.readings) == len(payload)
    assert first.readings[511][1] == {"v": 255, "t": "ff"}
    assert second.readings[0][1] == {"v": 7, "t": "07"}


def test_more_readings_than_a_frame_may_have() -> None:
    text = "record: log\nrecords: {log: {count: rest, fields: {v: {as: u8}}}}"
    (answer,) = explain(layout_of(text), [Frame(bytes(65_540))])
    assert answer.reject is not None
    assert answer.reject[0] == "malformed"
