"""What Sparkplug's addresses are called, both ways; simulated edge nodes; plant tests with typed frames."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fakes import MemoryAppender
from connectors.mqtt.source import MqttReceiver
from flows.broker import start_broker
from flows.cli import main
from flows.folder import open_plant
from flows.simulate import Simulator
from operators.batch import Address
from operators.decode.routing import FILTERED, GO, DeviceReader, Router
from operators.decode.spec import DecodePlan, MasterDevice, RoutingSpec, SourceSpec
from operators.rejects import Reason
from operators.sparkplug import SparkplugNames, SparkplugTopic, split_topic
from tests.ports import free_port
from tests.receivers.brokers import need_mosquitto
from tests.receivers.running import running, until
from tests.reference import typed_frames
from tests.sparkplug.test_plant import written

LEVEL = st.text(st.characters(exclude_characters="/+#\n", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(LEVEL, LEVEL, LEVEL)
def test_an_address_leads_to_its_device_and_back(group: str, node: str, device: str) -> None:
    topic = SparkplugTopic(group, "DDATA", node, device)
    assert split_topic(str(topic)) == topic
    plain = SparkplugNames("{group}/{node}/{device}", "{group}/{node}")
    assert plain.of(topic) == (f"{group}/{node}/{device}", f"{group}/{node}")
    assert plain.address(*plain.of(topic), "other") == topic
    of_node = topic._replace(type="NDATA", device="")
    assert plain.of(of_node) == (f"{group}/{node}", f"{group}/{node}")
    assert plain.address(*plain.of(of_node), "other") == of_node
    names = SparkplugNames()
    found = names.address(*names.of(topic), "other")  # '.' may stand in a name
    assert found is not None
    assert names.of(found) == names.of(topic)


def test_names_that_leave_parts_out() -> None:
    short = SparkplugNames("{device}", "{node}")
    assert short.of(SparkplugTopic("works", "DDATA", "edge1", "press-01")) == ("press-01", "edge1")
    assert str(short.address("press-01", "edge1", "works")) == "spBv1.0/works/DDATA/edge1/press-01"
    assert str(short.address("edge1", "edge1", "works")) == "spBv1.0/works/NDATA/edge1"
    assert SparkplugNames().address("press-01", "", "works") is None


def test_routes_of_a_source_with_sparkplug() -> None:
    source = SourceSpec("scada", device="payload:id", product="press", sparkplug=SparkplugNames())
    devices = {"works.edge1.press-01": MasterDevice("press"), "p2": MasterDevice("press")}
    router = Router(DecodePlan({}, RoutingSpec((source,), devices)))

    def route(topic: str, **headers: str) -> tuple[int, str, str]:
        found = router.route(Address("scada", topic, headers=tuple(headers.items())))
        return found.verdict, found.device_id, found.hub_id

    device = ("works.edge1.press-01", "works.edge1")
    known = DeviceReader(source)(Address("scada", "spBv1.0/works/NDEATH/edge1/press-01"))
    assert known == device  # for the choice of a shard
    unreadable = route("spBv1.0/works/DDATA/edge1/press-01", malformed="why")
    assert unreadable == (Reason.malformed, *device)
    assert route("spBv1.0/works/NCMD/edge1")[0] == FILTERED
    assert route("spBv1.0/works/DCMD/edge1/press-01")[0] == FILTERED
    assert route("spBv1.0/works/DATA/edge1")[0] != GO
    # only Sparkplug's receiver says so: elsewhere the header is the sender's own
    assert route("plant/p2", malformed="why")[0] != Reason.malformed


def test_simulated_edge_nodes_are_heard(tmp_path: Path) -> None:
    need_mosquitto()
    broker = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")

    async def scene() -> None:
        folder = written(tmp_path / "plant", broker.address[1])
        with (folder / "devices.csv").open("a") as file:
            file.write("works.edge1.press-02,press,works.edge1\nworks.edge1,press,works.edge1\n")
        plant = open_plant(folder)
        source = MqttReceiver("scada", plant.sources["scada"], plant="works", data=tmp_path)
        appender, stop = MemoryAppender(), asyncio.Event()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            simulator = Simulator(plant, rate=20.0)
            assert (simulator.running, simulator.skipped) == (3, {})
            task = asyncio.create_task(simulator.run(stop))
            await until(lambda: len(appender.frames) > 60)
            stop.set()
            await task
            await until(lambda: source.status.extra.get("sparkplug_deaths_total", 0.0) >= 3)
        assert source.status.extra["sparkplug_gaps_total"] == 0
        assert [frame for frame in appender.frames if frame.headers] == []
        topics = {frame.topic.split("/", 2)[2] for frame in appender.frames}
        assert {"DDATA/edge1/press-01", "DDATA/edge1/press-02", "NDATA/edge1"} < topics
        data = next(f for f in appender.frames if f.topic.endswith("DDATA/edge1/press-02"))
        assert {name for name, *_ in typed_frames.read(data.payload)} == {"Motor/Temp", "rpm", "mode"}

    try:
        asyncio.run(scene())
    finally:
        broker.stop()


TEST = """\
name: a press that overheats, and one that goes away
readings:
  - {at: "2026-03-01T09:00:00Z", device: works.edge1.press-01, metrics: {tempC: 20, online: true}}
  - {at: +5s, metrics: {tempC: 85}}
  - {at: +6s, metrics: {tempC: null}}
  - {at: +7s, metrics: {online: false}}
expect:
  alarms:
    - {ruleId: hot, device_id: works.edge1.press-01, transition: raised, at: +5s}
    - {ruleId: gone, transition: raised, at: +7s}
  rejects: 0
"""


def test_readings_of_a_plant_test_reach_typed_products(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "plant")
    (folder / "tests").mkdir()
    (folder / "tests" / "press.yaml").write_text(TEST, "utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["test", str(folder)])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.out + captured.err
