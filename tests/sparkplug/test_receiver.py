"""The MQTT receiver among edge nodes on a real broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from connectors.fakes import MemoryAppender
from connectors.mqtt.check import try_broker
from connectors.mqtt.config import MqttConfig, SparkplugConfig
from connectors.mqtt.source import MqttReceiver
from connectors.source import Frame
from flows.broker import Broker, start_broker
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.receivers.running import running, until
from tests.reference import typed_frames
from tests.services.node_packages import why_not
from tests.services.sparkplug_node import TahuNode
from tests.sparkplug.edge import Client, EdgeNode
from tests.waiting import LIMIT_S

PRESS = {"tempC": ("Double", 20.5), "rpm": ("Int16", -7)}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    need_mosquitto()
    one = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")
    yield one
    one.stop()


def receiver(broker: Broker, data: Path, *, subscribe: tuple[str, ...] = (), **keys: Any) -> MqttReceiver:
    host, port = broker.address
    config = MqttConfig(
        host=host,
        port=port,
        subscribe=list(subscribe),
        protocol=keys.pop("protocol", "3.1.1"),
        sparkplug=SparkplugConfig(**keys),
    )
    return MqttReceiver("line", config, plant="works", data=data)


def told(frames: list[Frame]) -> list[Any]:
    """(type and names, metric -> value, quality) of each."""
    found = []
    for frame in frames:
        values = typed_frames.read(frame.payload)
        name = "/".join(frame.topic.split("/")[2:])
        found.append((name, {metric: value for metric, value, _, _ in values}, {one[3] for one in values}))
    return found


async def off_loop(work: Callable[..., Any], *given: Any) -> Any:
    return await asyncio.to_thread(work, *given)


async def listening(source: MqttReceiver, appender: MemoryAppender, broker: Broker) -> None:
    """Until the broker hands on what is published from now on: connected is not yet subscribed."""
    await until(lambda: source.status.state == "connected")
    probe = EdgeNode("works", "probe", {"a": ("Int32", 1)}, {})
    publisher = Publisher(broker, "probe")
    while not appender.frames:
        topic, payload = probe.birth(int(time.time() * 1000))
        publisher.send([payload], topic, 0)
        await asyncio.sleep(0.05)
    publisher.close()


def heard(appender: MemoryAppender) -> list[Frame]:
    """All frames but those of `listening`."""
    return [frame for frame in appender.frames if "/probe" not in frame.topic]


def test_check_connect_tries_what_the_receiver_subscribes_to(broker: Broker, tmp_path: Path) -> None:
    said, warnings = try_broker("works", receiver(broker, tmp_path, groups=["works"]).config)
    assert said.startswith("the broker accepts")
    assert [one for one in warnings if "subscription" in one] == []


class Retained:
    """What stands at a topic."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.heard: list[dict[str, Any]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="looks")
        self._client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self._client.on_message = lambda client, userdata, message: self.heard.append(
            json.loads(message.payload)
        )
        self._client.connect(*broker.address)
        self._client.loop_start()

    def say(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(LIMIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_births_data_and_the_end_of_a_node_among_other_messages(broker: Broker, tmp_path: Path) -> None:
    async def scene() -> None:
        source = receiver(broker, tmp_path, subscribe=("plant/#",), groups=["works"], online="online")
        appender = MemoryAppender()
        async with running(source, appender):
            await listening(source, appender, broker)
            other = Publisher(broker)
            node = EdgeNode("works", "edge1", {"uptime": ("Int64", 5)}, {"press": PRESS})
            edge = await off_loop(Client, node, broker.address[1])
            await until(lambda: len(heard(appender)) == 2)
            for number in range(50):
                edge.data("press", {"tempC": 20.0 + number})
                other.send([b"%d" % number])
            await until(lambda: len(heard(appender)) == 102)
            edge.say("spBv1.0/works/DDATA/edge1/press", b"no protobuf", qos=1)
            edge.data("press", {"tempC": 99.5})
            await until(lambda: len(heard(appender)) == 104)
            edge.close()
            await until(lambda: len(heard(appender)) == 106)
            await off_loop(other.wait)
            other.close()
        plain = [frame.payload for frame in heard(appender) if frame.topic.startswith("plant/")]
        assert plain == [b"%d" % number for number in range(50)]
        (broken,) = [frame for frame in heard(appender) if frame.headers]
        assert (broken.payload, broken.headers) == (
            b"no protobuf",
            (("malformed", "its bytes are no protobuf"),),
        )
        rest = told(
            [frame for frame in heard(appender) if not frame.headers and not frame.topic.startswith("plant/")]
        )
        assert rest[:2] == [
            ("NBIRTH/edge1", {"uptime": 5.0, "online": True}, {"good"}),
            ("DBIRTH/edge1/press", {"tempC": 20.5, "rpm": -7.0, "online": True}, {"good"}),
        ]
        assert rest[2:53] == [
            ("DDATA/edge1/press", {"tempC": value}, {"good"})
            for value in (*(20.0 + number for number in range(50)), 99.5)
        ]
        assert rest[53:] == [
            ("NDEATH/edge1", {"uptime": None, "online": False}, {"bad", "good"}),
            ("NDEATH/edge1/press", {"tempC": None, "rpm": None, "online": False}, {"bad", "good"}),
        ]
        assert source.status.extra["sparkplug_malformed_total"] == 1.0

    asyncio.run(scene())


def test_a_node_that_was_there_before_is_asked_for_its_births(broker: Broker, tmp_path: Path) -> None:
    async def scene() -> None:
        node = EdgeNode("works", "edge1", {}, {"press": PRESS})
        edge = await off_loop(Client, node, broker.address[1])
        source, appender = receiver(broker, tmp_path), MemoryAppender()
        async with running(source, appender):
            await listening(source, appender, broker)
            edge.data("press", {"tempC": 30.0})
            await until(lambda: len(heard(appender)) == 2)
            edge.data("press", {"tempC": 31.0})
            await until(lambda: len(heard(appender)) == 3)
        assert dict(heard(appender)[0].headers) == {"malformed": "alias 1: no birth of press told of it"}
        assert told(heard(appender)[1:]) == [
            ("DBIRTH/edge1/press", {"tempC": 20.5, "rpm": -7.0}, {"good"}),
            ("DDATA/edge1/press", {"tempC": 31.0}, {"good"}),
        ]
        assert edge.asked == 1
        # an orderly end: aliases and sequence numbers are known to the next one
        source, appender = receiver(broker, tmp_path), MemoryAppender()
        async with running(source, appender):
            await listening(source, appender, broker)
            edge.data("press", {"tempC": 32.0})
            await until(lambda: len(heard(appender)) == 1)
        assert told(heard(appender)) == [("DDATA/edge1/press", {"tempC": 32.0}, {"good"})]
        assert edge.asked == 1
        edge.leave()

    asyncio.run(scene())


def test_what_a_node_says_with_qos_1_while_nobody_is_there_is_heard_once(
    broker: Broker, tmp_path: Path
) -> None:
    async def scene() -> None:
        node = EdgeNode("works", "edge1", {}, {"press": PRESS})
        source, appender = receiver(broker, tmp_path), MemoryAppender()
        async with running(source, appender):
            await listening(source, appender, broker)
            edge = await off_loop(Client, node, broker.address[1])
            await until(lambda: len(heard(appender)) == 1)
        for number in range(300):  # the sequence number goes round
            topic, payload = node.data("press", {"tempC": float(number)}, 1_780_000_000_000 + number)
            await off_loop(edge.say, topic, payload, 1)
        source, appender = receiver(broker, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: len(heard(appender)) >= 300)
        assert told(heard(appender)) == [
            ("DDATA/edge1/press", {"tempC": float(number)}, {"good"}) for number in range(300)
        ]
        source, appender = receiver(broker, tmp_path), MemoryAppender()
        async with running(source, appender):  # all of it was acknowledged
            await listening(source, appender, broker)
        assert heard(appender) == []
        edge.leave()

    asyncio.run(scene())


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_state_tells_whether_the_host_application_is_there(
    broker: Broker, tmp_path: Path, protocol: str
) -> None:
    async def scene() -> None:
        before = int(time.time() * 1000)
        looks = await off_loop(Retained, broker, "spBv1.0/STATE/penstock")
        source, appender = (
            receiver(broker, tmp_path, host_id="penstock", protocol=protocol),
            MemoryAppender(),
        )
        async with running(source, appender):
            await until(lambda: looks.heard)
            assert looks.heard[-1]["online"] is True
            assert before <= looks.heard[-1]["timestamp"] <= int(time.time() * 1000)
            # the will of an earlier connection of ours, told late
            looks.say("spBv1.0/STATE/penstock", b'{"online": false, "timestamp": 1}')
            await until(lambda: len(looks.heard) >= 3)
            assert looks.heard[-1] == looks.heard[0]
            count = len(looks.heard)
            # a connection that breaks: the broker tells the will, then the next one is there
            source._session._socket.shutdown(2)
            await until(lambda: len(looks.heard) >= count + 2)
            assert [one["online"] for one in looks.heard[count : count + 2]] == [False, True]
        await until(lambda: looks.heard[-1]["online"] is False)
        looks.close()
        assert heard(appender) == []

    asyncio.run(scene())


LACKING = why_not()


@pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
def test_an_edge_node_of_another_make(broker: Broker, tmp_path: Path) -> None:
    metrics = [
        *(
            ("tempC", "Double", 20.5),
            ("tiny", "Int8", -3),
            ("small", "Int16", -300),
            ("whole", "Int32", -70_000),
        ),
        *(("far", "Int64", -(10**12)), ("byte", "UInt8", 250), ("word", "UInt16", 65_000)),
        *(("large", "UInt32", 4_000_000_000), ("huge", "UInt64", 10**15), ("real", "Float", 0.5)),
        *(("on", "Boolean", False), ("mode", "String", "idle"), ("since", "DateTime", 1_780_000_000_000)),
    ]

    async def scene() -> None:
        source, appender = receiver(broker, tmp_path), MemoryAppender()
        async with running(source, appender):
            await listening(source, appender, broker)
            node = await off_loop(TahuNode, broker.address[1], "works", "edge1", "press", metrics)
            await until(lambda: len(heard(appender)) == 2)
            assert await off_loop(node.data, {"tempC": 80.5, "far": -5, "mode": "run"}) == 0
            await off_loop(node.data, {"tempC": None})
            await off_loop(node.death)
            await until(lambda: len(heard(appender)) == 5)
            node.kill()
            await until(lambda: len(heard(appender)) == 6)
        birth, device, first, _, death, end = told(heard(appender))
        assert birth == ("NBIRTH/edge1", {"model": "tahu"}, {"good"})
        assert device == (
            "DBIRTH/edge1/press",
            {name: float(value) if type(value) is int else value for name, _, value in metrics},
            {"good"},
        )
        assert first == ("DDATA/edge1/press", {"tempC": 80.5, "far": -5.0, "mode": "run"}, {"good"})
        assert told(heard(appender))[3][1] == {"tempC": None}
        assert death == ("DDEATH/edge1/press", {name: None for name, _, _ in metrics}, {"bad"})
        assert end == ("NDEATH/edge1", {"model": None}, {"bad"})

    asyncio.run(scene())


@pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
def test_an_edge_node_of_another_make_answers_the_question_for_its_births(
    broker: Broker, tmp_path: Path
) -> None:
    async def scene() -> None:
        node = await off_loop(
            TahuNode, broker.address[1], "works", "edge1", "press", [("tempC", "Double", 1.5)]
        )
        source, appender = receiver(broker, tmp_path), MemoryAppender()
        async with running(source, appender):
            await listening(source, appender, broker)
            await off_loop(node.data, {"tempC": 2.5})
            await until(lambda: len(heard(appender)) == 3)
        assert dict(heard(appender)[0].headers) == {"malformed": "alias 10: no birth of press told of it"}
        assert told(heard(appender)[1:]) == [
            ("NBIRTH/edge1", {"model": "tahu"}, {"good"}),
            ("DBIRTH/edge1/press", {"tempC": 2.5}, {"good"}),
        ]
        node.kill()

    asyncio.run(scene())
