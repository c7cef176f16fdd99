"""Simulated devices: frames that decode to their values, alarms in turn, real sockets."""

from __future__ import annotations

import asyncio
import binascii
import json
import struct
from typing import Any

import pytest

from connectors.errors import ConfigError
from connectors.fakes import MemoryAppender
from connectors.mqtt.config import MqttConfig
from connectors.tcp.config import LengthPrefix, TcpConfig
from connectors.tcp.source import TcpReceiver
from flows.plant_file import (
    DevicesConfig,
    Historian,
    JournalConfig,
    Limits,
    MasterData,
    Plant,
    Product,
    ServerConfig,
    Sinks,
)
from flows.simulate import Simulator, device_topic
from flows.simulated_frames import encoder
from flows.simulated_values import Circumstances, SimulatedDevice, Threshold, circumstances, thresholds
from operators.contract.spec import Metric
from operators.decode.spec import DecodeSpec
from rules.spec import ThresholdRule
from tests.receivers.running import running, until

HYDRAULICS: dict[str, Any] = {
    "format": "binary",
    "order": "be",
    "check": {"crc16": {"poly": 0x8005, "reflect": True, "init": 0xFFFF, "at": -2, "order": "le"}},
    "fields": {
        "pressure": {"at": 0, "as": "u16", "scale": 0.1},
        "oilC": {"at": 2, "as": "s16", "scale": 0.1, "offset": -40},
        "level": {"at": 4, "as": "f32le"},
        "pump": {"at": 8, "bit": 3},
        "mode": {"at": 8, "bits": "7..6", "map": {0: "idle", 1: "run"}},
    },
}


def product(decode: dict[str, Any], productId: str = "hydraulic", **keys: Any) -> Product:
    metrics = {
        "pressure": Metric(name="pressure", range=(0.0, 400.0)),
        "oilC": Metric(name="oilC", range=(-40.0, 120.0)),
        "level": Metric(name="level", range=(0.0, 100.0)),
        "pump": Metric(name="pump", type="boolean"),
        "mode": Metric(name="mode", type="string", values=["idle", "run"]),
    }
    spec = DecodeSpec(format=decode["format"], plain=decode)
    return Product(productId=productId, version=1, decode=spec, metrics=metrics, **keys)


def rule(condition: str) -> ThresholdRule:
    return ThresholdRule(ruleId="r", productId="hydraulic", condition=condition, severity="high")


def modbus_crc(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def test_a_binary_frame_holds_its_values() -> None:
    values: dict[str, Any] = {"pressure": 123.4, "oilC": 55.5, "level": 12.5, "pump": True, "mode": "run"}
    frame = encoder(product(HYDRAULICS)).encode(values, 0)
    assert len(frame) == 11
    assert struct.unpack(">Hh", frame[:4]) == (1234, 955)
    assert struct.unpack("<f", frame[4:8]) == (12.5,)
    assert frame[8] == 1 << 3 | 1 << 6
    assert int.from_bytes(frame[-2:], "little") == modbus_crc(frame[:-2])


def test_the_checks_are_the_published_ones() -> None:
    def check(kind: str, **keys: Any) -> bytes:
        plain = {
            "format": "binary",
            "fields": {"_t": {"at": 0, "as": "u32"}},
            "check": {kind: {"at": 4, **keys}},
        }
        return encoder(product(plain)).encode({"_t": 0x31323334}, 0)

    crc32 = check("crc32", poly=0x04C11DB7, reflect=True, init=0xFFFFFFFF, xor=0xFFFFFFFF)
    assert int.from_bytes(crc32[4:], "big") == binascii.crc32(b"1234")
    assert int.from_bytes(check("crc16", poly=0x1021)[4:], "big") == binascii.crc_hqx(b"1234", 0)
    assert check("sum8")[4] == sum(b"1234") & 0xFF
    assert check("xor8")[4] == 0x31 ^ 0x32 ^ 0x33 ^ 0x34


def test_cases_constants_and_stated_lengths() -> None:
    plain = {
        "format": "binary",
        "cases": [
            {
                "when": {"length": [10, 11], "byte": {0: 0x14}},
                "fields": {"pressure": {"at": 2, "as": "u16"}, "level": {"at": -2, "as": "u16"}},
            }
        ],
    }
    frame = encoder(product(plain)).encode({"pressure": 258, "level": 7}, 0)
    assert frame == bytes([0x14, 0, 1, 2, 0, 0, 0, 0, 0, 7])


def test_json_by_its_paths() -> None:
    plain = {
        "format": "json",
        "timestamp": {"path": "t[0].at", "unit": "s"},
        "metrics": {"pressure": "data.p[1].v", "mode": "m"},
    }
    frame = encoder(product(plain)).encode({"pressure": 1.5, "mode": "run"}, 1_772_355_600_000)
    assert json.loads(frame) == {
        "hub_timestamp": 1_772_355_600_000,
        "t": [{"at": 1_772_355_600}],
        "data": {"p": [None, {"v": 1.5}]},
        "m": "run",
    }


@pytest.mark.parametrize(
    ("decode", "text"),
    [
        ({"format": "csv"}, "product hydraulic is not simulated: its format is csv"),
        (
            {"format": "binary", "tlv": {}},
            "product hydraulic is not simulated: its layout has tlv",
        ),
        (
            {"format": "binary", "fields": {"a": {"at": 0, "as": "bcd"}}},
            "product hydraulic is not simulated: field a is bcd",
        ),
    ],
)
def test_what_is_not_simulated_is_said(decode: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        encoder(product(decode))
    assert str(error.value) == text


def test_values_are_quiet_but_for_the_excursion_and_equal_for_equal_seeds() -> None:
    hydraulic = product(HYDRAULICS, params={"hot": 80.0})
    rules = [rule("metrics.oilC > param.hot and mode == 'idle'"), rule("pressure < 20")]
    assert thresholds(hydraulic, rules, {"hot": "85"})[0] == Threshold("oilC", True, 85.0)
    assert thresholds(hydraulic, rules) == [Threshold("oilC", True, 80.0), Threshold("pressure", False, 20.0)]

    def play(seed: int) -> list[dict[str, Any]]:
        device = SimulatedDevice("h-1", hydraulic, rules, seed, 0, 3)
        return [device.values(float(second)) for second in range(125)]

    seconds = play(1)
    assert seconds == play(1)
    assert seconds != play(2)
    hot = [second for second, values in enumerate(seconds) if values["oilC"] > 80]
    low = [second for second, values in enumerate(seconds) if values["pressure"] < 20]
    assert 13 <= len(hot) <= 20
    assert hot == list(range(hot[0], hot[-1] + 1))
    assert min(low) > max(hot) + 30
    assert {values["mode"] for values in seconds} == {"idle"}
    assert all(-40 <= values["oilC"] <= 120 and 0 <= values["pressure"] <= 400 for values in seconds)


def test_switches_and_texts_stand_as_the_rules_need_them() -> None:
    told = circumstances(product(HYDRAULICS), [rule("oilC > 80 and pump"), rule("mode == 'run'")])
    assert told == Circumstances({("pump", True)}, {("mode", "run")})


def test_topics_follow_the_template_and_the_products_filter() -> None:
    config = MqttConfig(host="h", subscribe=["#"])
    assert (
        device_topic(config, product(HYDRAULICS), "p-1", "")
        == "iotlink/dev/nohub/p-1/periodic/pub/telemetry/bin"
    )
    own = product({"format": "json"}, topics=["iotlink/prd/+/+/event/pub/telemetry/json"])
    assert device_topic(config, own, "p-1", "hub-1") == "iotlink/prd/hub-1/p-1/event/pub/telemetry/json"
    short = MqttConfig(host="h", subscribe=["#"], topic="devices/{hub_id}/{device_id}/{role}")
    assert device_topic(short, own, "p-1", "hub-1") == "devices/hub-1/p-1/telemetry"


def plant(sources: dict[str, Any], devices: dict[str, dict[str, str]], *products: Product) -> Plant:
    return Plant(
        name="line",
        timezone="UTC",
        sha256="",
        files={},
        products={one.productId: one for one in products},
        rules=[],
        master=MasterData(devices=devices),
        sources=sources,
        devices=DevicesConfig(),
        sinks=Sinks(),
        historian=Historian(),
        server=ServerConfig(),
        journal=JournalConfig(),
        limits=Limits(),
    )


def test_devices_on_real_sockets_are_acknowledged() -> None:
    async def scene() -> None:
        config = TcpConfig(
            listen="127.0.0.1:0", framing=LengthPrefix(), acknowledge="06", device="peer", product="hydraulic"
        )
        source, appender = TcpReceiver("units", config), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.port)
            config = TcpConfig(
                listen=f"127.0.0.1:{source.port}",
                framing=LengthPrefix(),
                acknowledge="06",
                device="peer",
                product="hydraulic",
            )
            rows = {name: {"productId": "hydraulic"} for name in ("127.0.0.1", "127.0.0.2", "unit-3")}
            simulator = Simulator(plant({"units": config}, rows, product(HYDRAULICS)), rate=20.0)
            assert simulator.skipped == {"unit-3": "units (device: peer) cannot tell unit-3"}
            stop = asyncio.Event()
            task = asyncio.create_task(simulator.run(stop))
            await until(lambda: simulator.told.acknowledged >= 20)
            stop.set()
            await task
        assert simulator.told.acknowledged == simulator.told.sent == len(appender.frames)
        assert {frame.topic for frame in appender.frames} == {"127.0.0.1", "127.0.0.2"}
        assert all(
            modbus_crc(f.payload[:-2]) == int.from_bytes(f.payload[-2:], "little") for f in appender.frames
        )

    asyncio.run(scene())
