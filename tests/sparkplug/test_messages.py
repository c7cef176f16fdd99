"""From Sparkplug messages to frames: names, types, times, sequence numbers, deaths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.sparkplug.messages import Sparkplug
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType, Payload
from connectors.mqtt.sparkplug.store import BirthStore
from connectors.source import Frame
from operators.batch import FRAME_HISTORICAL, FRAME_RETAINED
from operators.spec import SECOND
from tests.reference import typed_frames
from tests.sparkplug.edge import EdgeNode, put

T = 1_780_000_000_000


class Listener:
    """A `Sparkplug` with a clock to set, and what came of its messages."""

    def __init__(self, folder: Path | None = None, **keys: Any) -> None:
        self.clock = 1000.0
        self.config = SparkplugConfig(**keys)
        self.folder = folder
        self.open()

    def open(self) -> None:
        store = BirthStore(self.folder) if self.folder is not None else None
        self.sparkplug = Sparkplug(
            self.config, store, now=lambda: self.clock, now_ms=lambda: T + int((self.clock - 1000) * 1000)
        )
        self.sparkplug.connected()

    def hear(self, *messages: tuple[str, bytes]) -> list[Any]:
        found = [shown(frame) for message in messages for frame in self.sparkplug.take(*message)]
        self.sparkplug.keep()
        self.sparkplug.keep_deaths(self.sparkplug.deaths())
        return found

    def wait(self, seconds: float) -> list[Any]:
        found = []
        for _ in range(int(seconds)):
            self.clock += 1
            found += [shown(frame) for frame in self.sparkplug.tick()]
        return found

    def asked(self) -> list[str]:
        return [topic for topic, _ in self.sparkplug.commands()]


def shown(frame: Frame) -> Any:
    """(topic without the namespace, values or why it is none, flags)."""
    topic = frame.topic.removeprefix("spBv1.0/")
    why = dict(frame.headers).get("malformed")
    return (topic, why if why is not None else typed_frames.read(frame.payload), frame.flags)


def node(**devices: Any) -> EdgeNode:
    one = EdgeNode("plant", "edge1", {"uptime": ("Int64", 1)}, devices or {"press": PRESS})
    one.session()
    return one


PRESS = {"tempC": ("Double", 20.5), "rpm": ("Int16", -7), "mode": ("String", "idle"), "on": ("Boolean", True)}


def test_a_birth_tells_all_values_as_one_reading_of_its_time() -> None:
    one, listener = node(), Listener()
    assert listener.hear(*one.births(T)) == [
        ("plant/NBIRTH/edge1", [("uptime", 1.0, T, "good")], 0),
        (
            "plant/DBIRTH/edge1/press",
            [
                ("tempC", 20.5, T, "good"),
                ("rpm", -7.0, T, "good"),
                ("mode", "idle", T, "good"),
                ("on", True, T, "good"),
            ],
            0,
        ),
    ]
    assert listener.hear(one.data("press", {"rpm": -300, "mode": "run"}, T + 5)) == [
        ("plant/DDATA/edge1/press", [("rpm", -300.0, T + 5, "good"), ("mode", "run", T + 5, "good")], 0)
    ]
    assert listener.asked() == []


def test_values_are_as_old_as_they_say_and_a_birth_is_of_now() -> None:
    listener = Listener()
    birth = Payload(timestamp=T, seq=0)
    birth.metrics.add(name="a", timestamp=T - 86_400_000, datatype=DataType.Int8, int_value=200)
    old = birth.metrics.add(name="a", timestamp=T - 9000, datatype=DataType.Int8, int_value=1)
    old.is_historical = True
    found = listener.hear(("spBv1.0/g/NBIRTH/n", birth.SerializeToString()))
    assert found == [
        ("g/NBIRTH/n", [("a", 1.0, T - 9000, "good")], FRAME_HISTORICAL),
        ("g/NBIRTH/n", [("a", -56.0, T, "good")], 0),
    ]
    data = Payload(timestamp=T + 10, seq=1)
    data.metrics.add(name="a", int_value=2)
    data.metrics.add(name="a", timestamp=T + 9, int_value=1)
    assert listener.hear(("spBv1.0/g/NDATA/n", data.SerializeToString())) == [
        ("g/NDATA/n", [("a", 1.0, T + 9, "good"), ("a", 2.0, T + 10, "good")], 0)
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "DateTime")),
    st.data(),
)
def test_whole_numbers_come_back_whatever_their_sign_and_width(datatype: str, data: Any) -> None:
    bits = 64 if datatype == "DateTime" else int(datatype.lstrip("UInt"))
    signed = datatype.startswith("Int")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    value = data.draw(st.integers(low, high))
    listener, birth = Listener(), Payload(timestamp=T, seq=0)
    put(birth.metrics.add(name="a", alias=0, datatype=DataType.Value(datatype)), datatype, value)
    again = Payload(timestamp=T, seq=1)
    put(again.metrics.add(alias=0), datatype, value)
    # of their own width, as some write them, and all as 64 bits
    narrow = Payload(timestamp=T, seq=2)
    narrow.metrics.add(alias=0, long_value=value & (1 << bits) - 1)
    found = listener.hear(
        ("spBv1.0/g/NBIRTH/n", birth.SerializeToString()),
        ("spBv1.0/g/NDATA/n", again.SerializeToString()),
        ("spBv1.0/g/NDATA/n", narrow.SerializeToString()),
    )
    assert [values for _, values, _ in found] == [[("a", float(value), T, "good")]] * 3


def test_qualities_nulls_and_what_is_no_scalar() -> None:
    one = node(press={"a": ("Int32", 1), "blob": ("Bytes", b"\0\1")})
    listener = Listener()
    listener.hear(*one.births(T))
    assert listener.sparkplug.counts["skipped_values_total"] == 1
    qualities = {192: "good", 0: "bad", 500: "bad", 64: "uncertain", 216: "good", (1 << 32) - 5: "bad"}
    for code, told in qualities.items():
        ((_, values, _),) = listener.hear(one.data("press", {"a": 5}, T, quality=code))
        assert values == [("a", 5.0, T, told)]
    ((_, values, _),) = listener.hear(one.data("press", {"a": None}, T))
    assert values == [("a", None, T, "good")]  # decoding makes a null bad
    assert listener.hear(one.data("press", {"blob": b"x"}, T)) == []


def test_a_backlog_is_a_frame_of_its_own() -> None:
    one, listener = node(), Listener()
    listener.hear(*one.births(T))
    ((topic, values, flags),) = listener.hear(one.data("press", {"tempC": 1.0}, T - 5000, historical=True))
    assert (topic, values, flags) == (
        "plant/DDATA/edge1/press",
        [("tempC", 1.0, T - 5000, "good")],
        FRAME_HISTORICAL,
    )


def test_a_gap_makes_values_uncertain_until_the_births_that_are_asked_for() -> None:
    one, listener = node(), Listener()
    listener.hear(*one.births(T))
    one.data("press", {"tempC": 1.0}, T)  # never comes
    ((_, values, _),) = listener.hear(one.data("press", {"tempC": 2.0}, T + 1))
    assert values == [("tempC", 2.0, T + 1, "good")]  # it may only be late
    assert (listener.wait(1), listener.asked()) == ([], [])
    listener.wait(2)
    assert listener.asked() == ["spBv1.0/plant/NCMD/edge1"]
    ((_, values, _),) = listener.hear(one.data("press", {"tempC": 3.0}, T + 2))
    assert values == [("tempC", 3.0, T + 2, "uncertain")]
    assert listener.sparkplug.counts["gaps_total"] == 1
    listener.hear(*one.births(T + 3))
    ((_, values, _),) = listener.hear(one.data("press", {"tempC": 4.0}, T + 4))
    assert values == [("tempC", 4.0, T + 4, "good")]
    assert listener.asked() == []


def test_what_comes_out_of_order_or_twice_is_no_gap() -> None:
    one, listener = node(), Listener()
    listener.hear(*one.births(T))
    messages = [one.data("press", {"tempC": float(n)}, T + n) for n in range(600)]
    for at in range(0, 600, 3):
        listener.hear(messages[at + 1], messages[at], messages[at], messages[at + 2])
    listener.wait(5)
    counts = listener.sparkplug.counts
    assert (counts["gaps_total"], counts["repeats_total"], listener.asked()) == (0, 200, [])


def test_an_alias_without_a_birth_is_a_reject_and_a_question_that_grows_rare() -> None:
    one, listener = node(), Listener()
    one.births(T)
    message = one.data("press", {"tempC": 1.0, "rpm": 2}, T)
    assert listener.hear(message) == [
        ("plant/DDATA/edge1/press", "alias 2 and 1 more: no birth of press told of it", 0)
    ]
    (frame,) = listener.sparkplug.take(*one.data("press", {"tempC": 1.0}, T))
    assert Payload.FromString(frame.payload).metrics[0].alias == 2  # the message as it came
    asked = []
    for second in range(120):
        listener.hear(one.data("press", {"tempC": 1.0}, T))
        asked += [second] * len(listener.asked())
        listener.wait(1)
    assert asked == [0, 5, 15, 35, 75]
    assert listener.sparkplug.counts["unknown_aliases_total"] == 123


def test_who_must_not_ask_does_not() -> None:
    one, listener = node(), Listener(rebirth=False)
    one.births(T)
    listener.hear(one.data("press", {"tempC": 1.0}, T))
    assert listener.asked() == []


def test_a_death_makes_the_last_values_bad_behind_their_own_time() -> None:
    one, listener = node(), Listener(online="online")
    (_, (_, values, _)) = listener.hear(*one.births(T))
    assert values[-1] == ("online", True, T, "good")
    listener.hear(one.data("press", {"tempC": 30.0}, T + 700))
    gone = [*((name, None, T + 701, "bad") for name in PRESS), ("online", False, T + 701, "good")]
    assert listener.hear(one.device_death("press", T + 700)) == [("plant/DDEATH/edge1/press", gone, 0)]
    assert listener.hear(one.device_death("press", T + 702)) == []
    listener.hear(one.device_birth("press", T + 5000))
    listener.clock += 6
    assert listener.hear(one.death()) == [
        ("plant/NDEATH/edge1", [("uptime", None, T + 6000, "bad"), ("online", False, T + 6000, "good")], 0),
        (
            "plant/NDEATH/edge1/press",
            [*((name, None, T + 6000, "bad") for name in PRESS), ("online", False, T + 6000, "good")],
            0,
        ),
    ]
    assert listener.hear(one.death()) == []


def test_a_device_that_speaks_after_its_death_is_asked_for_its_birth() -> None:
    one, listener = node(), Listener()
    listener.hear(*one.births(T))
    listener.hear(one.device_death("press", T + 1))
    assert listener.asked() == []
    ((_, values, _),) = listener.hear(one.data("press", {"tempC": 4.0}, T + 2))
    assert (values, listener.asked()) == ([("tempC", 4.0, T + 2, "good")], ["spBv1.0/plant/NCMD/edge1"])


def test_a_death_of_an_earlier_session_is_none() -> None:
    one, listener = node(), Listener()
    listener.hear(*one.births(T))
    old = one.death()
    one.session()
    listener.hear(*one.births(T + 1000))
    assert listener.hear(old) == []
    assert listener.sparkplug.counts["old_deaths_total"] == 1
    assert len(listener.hear(one.death())) == 2


def test_a_device_that_does_not_come_back_with_its_node_is_gone() -> None:
    one = node(press={"a": ("Int32", 1)}, pump={"b": ("Int32", 1)})
    listener = Listener()
    listener.hear(*one.births(T))
    listener.hear(one.birth(T + 1000), one.device_birth("press", T + 1000))
    assert listener.wait(9) == []
    assert listener.wait(2) == [("plant/NDEATH/edge1/pump", [("b", None, T + 10_000, "bad")], 0)]


def test_aliases_mean_the_same_after_a_restart_and_a_kill_leaves_a_doubt(tmp_path: Path) -> None:
    one, listener = node(), Listener(tmp_path / "births")
    listener.hear(*one.births(T))
    listener.hear(one.data("press", {"tempC": 1.0}, T + 1))
    listener.sparkplug.close()
    listener.open()
    ((_, values, _),) = listener.hear(one.data("press", {"tempC": 2.0}, T + 2))
    assert values == [("tempC", 2.0, T + 2, "good")]
    assert (listener.wait(5), listener.asked()) == ([], [])
    listener.sparkplug._store._environment.close()  # the end of a process that had no time
    listener.open()
    ((_, values, _),) = listener.hear(one.data("press", {"tempC": 3.0}, T + 3))
    assert values == [("tempC", 3.0, T + 3, "uncertain")]
    listener.wait(5)
    assert listener.asked() == ["spBv1.0/plant/NCMD/edge1"]
    listener.hear(*one.births(T + 4))
    ((_, values, _),) = listener.hear(one.data("press", {"tempC": 4.0}, T + 5))
    assert values == [("tempC", 4.0, T + 5, "good")]
    assert len(listener.hear(one.death())) == 2


def test_a_death_that_never_became_durable_is_one_when_it_comes_again(tmp_path: Path) -> None:
    one, listener = node(), Listener(tmp_path / "births")
    listener.hear(*one.births(T))
    for death in (one.device_death("press", T + 1), one.death()):
        gone = len(listener.sparkplug.take(*death))
        listener.sparkplug.keep()
        listener.sparkplug._store._environment.close()  # killed before the journal had its frames
        listener.open()
        assert gone == len(listener.hear(death)) == 1
        listener.sparkplug._store._environment.close()  # and before the broker had the acknowledgement
        listener.open()
        assert listener.hear(death) == []


def test_a_birth_behind_a_death_is_not_undone_when_the_death_is_durable(tmp_path: Path) -> None:
    one, listener = node(), Listener(tmp_path / "births")
    listener.hear(*one.births(T))
    listener.sparkplug.take(*one.device_death("press", T + 1))
    deaths = listener.sparkplug.deaths()
    listener.sparkplug.take(*one.device_birth("press", T + 2))
    listener.sparkplug.keep()
    listener.sparkplug.keep_deaths(deaths)
    listener.sparkplug._store._environment.close()
    listener.open()
    assert len(listener.hear(one.device_death("press", T + 3))) == 1


@pytest.mark.parametrize(
    ("topic", "payload", "why"),
    [
        ("g/NDATA/n", b"{}", "its bytes are no protobuf"),
        ("g/NDATA/n", b"\x2a\x00", "it holds neither metrics nor a sequence number nor a time"),
        ("g/NDATA/n", b"\x12\x03\x0a\x01\xff\x18\x00", "the name of a metric is not valid UTF-8"),
        (
            "g/NDATA/n",
            b"\x12\x06\x0a\x01a\x7a\x01\xff\x18\x00",
            "the text of metric 'a' is not valid UTF-8",
        ),
        ("g/XDATA/n", b"", "its topic is none of a Sparkplug message"),
        ("g/DDATA/n", b"", "its topic is none of a Sparkplug message"),
    ],
)
def test_what_cannot_be_read_is_kept_as_it_came(topic: str, payload: bytes, why: str) -> None:
    listener = Listener()
    (frame,) = listener.sparkplug.take(f"spBv1.0/{topic}", payload)
    assert (frame.topic, frame.payload, frame.headers) == (
        f"spBv1.0/{topic}",
        payload,
        (("malformed", why),),
    )
    one = node()
    assert len(listener.hear(*one.births(T))) == 2  # and the next ones arrive


def test_commands_retained_and_empty_messages_pass_as_they_are() -> None:
    listener = Listener()
    assert listener.sparkplug.take("spBv1.0/g/NCMD/n", b"x") == [Frame("spBv1.0/g/NCMD/n", b"x")]
    assert listener.sparkplug.take("spBv1.0/g/NDATA/n", b"x", FRAME_RETAINED) == [
        Frame("spBv1.0/g/NDATA/n", b"x", FRAME_RETAINED)
    ]
    assert listener.sparkplug.take("spBv1.0/g/NDATA/n", b"") == [Frame("spBv1.0/g/NDATA/n", b"")]


def test_two_devices_of_one_name_are_never_mixed() -> None:
    listener = Listener(device_id="{device}", hub_id="{node}", reorder=SECOND)
    first = EdgeNode("plant", "edge1", {}, {"press": PRESS})
    second = EdgeNode("plant", "edge2", {}, {"press": PRESS})
    listener.hear(*first.births(T))
    found = listener.hear(*second.births(T))
    assert found == [("plant/DBIRTH/edge2/press", "another device of the source has the same name", 0)]


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=60), st.sampled_from(("NBIRTH/n", "NDATA/n", "NDEATH/n", "DDATA/n/d", "DDEATH/n/d"))
)
def test_no_bytes_end_the_receiver(payload: bytes, what: str) -> None:
    listener = Listener()
    listener.sparkplug.take(f"spBv1.0/g/{what}", payload)
    assert len(listener.hear(*node().births(T))) == 2
