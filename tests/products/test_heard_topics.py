"""Topics of a broker become sources of which no two take the same, and all that was heard decodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.check_command import check_folder
from flows.heard import HeardFrame
from flows.heard_plant import make_plant
from flows.heard_sources import taken
from flows.heard_topics import MOST_SOURCES, heard_sources
from flows.plant_file import Plant
from operators.batch import Address
from operators.decode.routing import TopicFilters

START = 1_772_355_600_000
Sent = list[tuple[str, bytes]]


def text(body: Any) -> bytes:
    return json.dumps(body).encode()


def heard(sent: Sent) -> list[HeardFrame]:
    return [
        HeardFrame(Address("line1", topic, -1, ()), data, START + n) for n, (topic, data) in enumerate(sent)
    ]


def checked(folder: Path) -> Plant:
    plant, problems = check_folder(folder)
    assert plant is not None, problems.render()
    assert problems.render() == ""
    return plant


def standard(device: str) -> tuple[str, bytes]:
    body = {"device_timestamp": START, "data": {"metrics": {"bar": 200}}}
    return f"iotlink/prd/hub-a/{device}/periodic/pub/telemetry/json", text(body)


SHAPES: dict[str, tuple[Sent, dict[str, tuple[list[str], str | None]]]] = {
    "topics of several makers": (
        [
            *(standard(f"press-{n}") for n in range(3)),
            *((f"plant/line{n % 2}/oven-{n}/state", text({"ts": START, "t": n})) for n in range(4)),
            *((f"zigbee2mqtt/lamp_{n}", text({"brightness": n, "state": "ON"})) for n in range(3)),
            ("zigbee2mqtt/bridge/state", b"online"),
        ],
        {
            "line1": (["iotlink/+/+/+/+/pub/+/+"], None),
            "line1-plant": (["plant/+/+/state"], None),
            "line1-zigbee2mqtt": (["zigbee2mqtt/+"], None),
            "line1-zigbee2mqtt-2": (["zigbee2mqtt/+/state"], None),
        },
    ),
    "values that stand alone": (
        [(f"home/{room}/{what}", b"21.5") for room in ("kitchen", "bath") for what in ("temp", "hum")],
        {
            "line1-temp": (["home/+/temp"], "temp-v1"),
            "line1-hum": (["home/+/hum"], "hum-v1"),
        },
    ),
    "messages of one device that one product reads": (
        [
            ("tele/plug-1/SENSOR", text({"Time": "2026-03-01T09:00:00", "ENERGY": {"Power": 3}})),
            ("tele/plug-1/STATE", text({"Time": "2026-03-01T09:00:00", "Wifi": {"RSSI": 80}})),
            ("tele/plug-1/LWT", b"Online"),
            ("stat/plug-1/POWER", b"ON"),
        ],
        {
            "line1-tele": (["tele/+/SENSOR", "tele/+/STATE"], None),
            "line1-LWT": (["tele/+/LWT"], "LWT-v1"),
            "line1-POWER": (["stat/+/POWER"], "POWER-v1"),
        },
    ),
    "a member that is a number here and a text there": (
        [
            *((f"d/x{n}/a", text({"s": 1, "q": 2})) for n in range(2)),
            *((f"d/x{n}/b", text({"s": "run"})) for n in range(2)),
        ],
        {"line1-d": (["d/+/a"], None), "line1-b": (["d/+/b"], "b-v1")},
    ),
    "a slash at the beginning, and names first": (
        [("/plant/dev1/temp", b"1"), ("/plant/dev2/temp", b"2"), ("m-1/up", b"3"), ("m-2/up", b"4")],
        {"line1": (["/plant/+/temp"], None), "line1-2": (["+/up"], None)},
    ),
    "bytes that nobody can guess": (
        [(f"lora/{n % 2}/up", bytes([1, 2, 0xFF, n, *range(n % 2)])) for n in range(6)]
        + [(f"lora/{n % 2}/status", bytes([0xFE, n])) for n in range(4)],
        {"line1-up": (["lora/+/up"], "up-v1"), "line1-status": (["lora/+/status"], "status-v1")},
    ),
    "devices whose names stand in the payload": (
        [(f"ingest/{'ab'[n % 2]}", text({"meta": {"sn": f"SN{n % 5}"}, "v": n})) for n in range(10)],
        {"line1": (["ingest/+"], None)},
    ),
    "readings of many devices in a frame": (
        [
            ("gw/1/up", text({"ts": START, "readings": [{"sn": f"S{k}", "t": 20 + k} for k in range(n)]}))
            for n in (1, 3)
        ],
        {"line1": (["gw/+/up"], "line1-v1")},
    ),
    "a metric an element": (
        [("kep", text({"values": [{"id": f"Ch1.Tag{k}", "v": k, "q": True, "t": START} for k in range(3)]}))],
        {"line1": (["kep"], None)},
    ),
    "a value or a word": (
        [("ha/s1/state", b"21.5"), ("ha/s1/state", b"unavailable"), ("ha/s1/state", b"22")],
        {"line1": (["ha/+/state"], None)},
    ),
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_what_was_heard_decodes(shape: str, tmp_path: Path) -> None:
    sent, expected = SHAPES[shape]
    made = make_plant(tmp_path / "works", heard(sent))
    assert f"decoded: {len(sent)} of {len(sent)} frames (100 %)" == made.told[-1]
    plant = checked(tmp_path / "works")
    found = {name: (one.subscribe, one.product) for name, one in plant.sources.items()}  # type: ignore[union-attr]
    if shape == "a slash at the beginning, and names first":
        assert {tuple(filters) for filters, _ in found.values()} == {("/plant/+/temp",), ("+/up",)}
    else:
        assert found == expected


def test_a_value_that_stands_alone_has_the_name_of_its_topic(tmp_path: Path) -> None:
    make_plant(tmp_path / "works", heard(SHAPES["values that stand alone"][0]))
    products = checked(tmp_path / "works").products
    assert {name: list(product.metrics) for name, product in products.items()} == {
        "temp-v1": ["temp"],
        "hum-v1": ["hum"],
    }


def test_more_messages_than_sources(tmp_path: Path) -> None:
    sent = [(f"acme/cell{c}/m{m}x", b"%d" % m) for c in range(2) for m in range(30) for _ in range(3)]
    made = make_plant(tmp_path / "works", heard(sent))
    plant = checked(tmp_path / "works")
    assert len(plant.sources) == MOST_SOURCES
    assert (
        "sources.line1-others takes 19 kinds of topics into one product, for want of sources: give those "
        "that matter a source and a product each"
    ) in made.told
    assert made.told[-1] == "decoded: 180 of 180 frames (100 %)"


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    sent = [("a/d1/t", b"1"), ("a/d2/t", b"2"), ("a/d1/gone", b""), ("{odd}/d1/t", b"3")]
    made = make_plant(tmp_path / "works", [*heard(sent[:1]), *heard(sent[1:])])
    told = "2 frames left out, always empty or under topics that no filter can tell from others, e.g. "
    assert f"{told}'a/d1/gone'" in made.told
    assert made.told[-1] == "decoded: 2 of 2 frames (100 %)"


def test_retained_messages_are_learned_from_and_told(tmp_path: Path) -> None:
    frames = [
        frame._replace(retained=n == 0) for n, frame in enumerate(heard([("a/d1", b"1"), ("a/d2", b"2")]))
    ]
    made = make_plant(tmp_path / "works", frames)
    assert "1 frame retained by the broker from before; a plant that runs filters those" in made.told
    assert list(checked(tmp_path / "works").master.devices) == ["d1", "d2"]


LEVELS = st.sampled_from(
    ["", "a", "b", "tele", "temp", "dev1", "dev2", "press-7", "$state", "x y", "ü", "{", "9"]
)
PAYLOADS = st.sampled_from(
    [
        b"21.5",
        b"ON",
        b"",
        b"\x01\xff",
        b'{"value": 1}',
        b'{"value": "on"}',
        b'{"t": 1, "deviceId": "d9"}',
        b"a;b",
    ]
)
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TOPICS, PAYLOADS), min_size=1, max_size=12))
def test_no_two_sources_take_one_topic(sent: Sent) -> None:
    frames = heard(sent)
    sources = heard_sources(frames)
    filters = TopicFilters((source.name, one) for source in sources for one in source.filters)
    for frame in taken(frames, sources):
        assert filters.takers(frame.address.topic) == (frame.address.source,)
    assert len({source.name for source in sources}) == len(sources)
