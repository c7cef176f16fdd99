"""`penstock new --from`: the plant passes `check` and decodes what was heard."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from connectors.errors import ConfigError, ConnectError
from flows.broker import start_broker
from flows.check_command import check_folder, check_product
from flows.heard import HeardFrame
from flows.heard_kinds import heard_kinds
from flows.heard_mqtt import Broker, broker_of, listen
from flows.heard_plant import make_plant, new_from
from flows.heard_product import product_text, widened
from flows.heard_sources import of_sources, taken
from flows.heard_tcp import Read, framed
from flows.heard_topics import heard_sources
from flows.new_command import new
from flows.plant_file import Plant
from operators.batch import Address
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.receivers.certificates import Authority
from tests.waiting import LIMIT_S, until

START = 1_772_355_600_000


def recording(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text(
        "".join(json.dumps({"ingest_ts": START + n, **one}) + "\n" for n, one in enumerate(lines))
    )
    return path


def checked(folder: Path) -> Plant:
    plant, problems = check_folder(folder)
    assert plant is not None, problems.render()
    assert problems.render() == ""
    return plant


def press(number: int, **values: Any) -> dict[str, Any]:
    body = {"ts": START, "tempC": 60 + number, "mode": "run", **values}
    return {"source": "line1", "topic": f"plant/press-{number:02}/telemetry", "payload": json.dumps(body)}


def pump(data: str) -> dict[str, Any]:
    return {"source": "line1", "topic": "plant/pump-01/telemetry", "payload_hex": data}


def test_a_capture_of_two_kinds_of_devices(tmp_path: Path) -> None:
    lines = [press(1, rpm=1480), pump("4801ff8022"), press(2), pump("4801ff802299"), press(2, on=True)]
    source = recording(tmp_path / "capture.jsonl", lines)
    folder = tmp_path / "works"
    ran = CliRunner().invoke(new, [str(folder), "--from", str(source)])
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.splitlines() == [
        "press-v1: json, 3 frames of 2 devices",
        "  devices: press-01, press-02",
        f'  a payload: {{"ts": {START}, "tempC": 61, "mode": "run", "rpm": 1480}}',
        "pump-v1: binary, 2 frames of 1 device",
        "  devices: pump-01",
        "  lengths: 5 bytes 1x, 6 bytes 1x",
        "decoded: 5 of 5 frames (100 %)",
    ]
    plant = checked(folder)
    assert (folder / "devices.csv").read_text() == (
        "device_id,productId,name\npress-01,press-v1,\npress-02,press-v1,\npump-01,pump-v1,\n"
    )
    metrics = plant.products["press-v1"].metrics
    assert {name: (one.type, one.required, one.range) for name, one in metrics.items()} == {
        "tempC": ("number", True, (-40, 150)),
        "mode": ("string", True, None),
        "rpm": ("number", False, (0, 5000)),
        "on": ("boolean", False, None),
    }
    assert 'subscribe: ["plant/+/telemetry"]' in (folder / "plant.yaml").read_text()
    assert 'topic: "plant/{device_id}/telemetry"' in (folder / "plant.yaml").read_text()


def test_what_it_says_as_json(tmp_path: Path) -> None:
    source = recording(tmp_path / "capture.jsonl", [press(1), press(2)])
    ran = CliRunner().invoke(new, [str(tmp_path / "works"), "--from", str(source), "--json"])
    told = json.loads(ran.stdout)
    assert (told["check"], told["told"][-1]) == (str(tmp_path / "works"), "decoded: 2 of 2 frames (100 %)")
    assert all(Path(file).is_file() for file in told["files"])


def test_standard_topics_csv_files_and_peers(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for n in range(3):
        body = {"device_timestamp": START, "data": {"metrics": {"bar": 200.0 + n}}}
        topic = f"iotlink/prd/hub-a/press-{n}/periodic/pub/telemetry/json"
        lines.append({"source": "line1", "topic": topic, "payload": json.dumps(body)})
        row = f"2026-03-01 09:00:0{n};{n},5"
        headers = {"csv": "time;flow"}
        lines.append({"source": "drops", "topic": "oven-7.csv", "payload": row, "headers": headers})
        frame = bytes([0x48, n]) + (0x3144 + n).to_bytes(2, "big")
        peer = {"peer": f"127.0.0.{n + 1}:40000"}
        lines.append(
            {"source": "hyd", "topic": f"127.0.0.{n + 1}", "payload_hex": frame.hex(), "headers": peer}
        )
    made = new_from(tmp_path / "works", str(recording(tmp_path / "capture.jsonl", lines)), "device-v1", 1.0)
    assert made.told[-1] == "decoded: 9 of 9 frames (100 %)"
    plant = checked(tmp_path / "works")
    assert set(plant.products) == {"press-v1", "oven-v1", "device-v1"}
    assert plant.products["oven-v1"].metrics["flow"].range == (0, 5)
    assert set(plant.master.devices) == {
        *("press-0", "press-1", "press-2", "oven-7"),
        *("127.0.0.1", "127.0.0.2", "127.0.0.3"),
    }


def test_a_member_of_the_payload_names_the_device(tmp_path: Path) -> None:
    lines = [
        {"source": "app", "topic": "ingest", "payload": json.dumps({"deviceId": f"cell-{n % 2}", "volts": n})}
        for n in range(4)
    ]
    made = new_from(tmp_path / "works", str(recording(tmp_path / "c.jsonl", lines)), "cells", 1.0)
    assert made.told[-1] == "decoded: 4 of 4 frames (100 %)"
    assert set(checked(tmp_path / "works").products) == {"cells"}


def test_what_does_not_decode_is_told(tmp_path: Path) -> None:
    lines = [press(1), press(1), press(2), {**press(2), "payload": "{broken"}]
    made = new_from(tmp_path / "works", str(recording(tmp_path / "c.jsonl", lines)), "device-v1", 1.0)
    assert made.told[-2] == "decoded: 3 of 4 frames (75.0 %), 1 rejected"
    assert made.told[-1].startswith("  1x malformed: ")


def test_a_topic_a_value_is_a_number_and_no_bytes(tmp_path: Path) -> None:
    lines = [
        {"source": "line1", "topic": f"hall/meter-{n % 3}/state", "payload": f"{20 + n}.5"} for n in range(30)
    ]
    made = new_from(tmp_path / "works", str(recording(tmp_path / "c.jsonl", lines)), "device-v1", 1.0)
    plant = checked(tmp_path / "works")
    (product,) = plant.products.values()
    assert product.decode.format == "csv"
    assert [metric.type for metric in product.metrics.values()] == ["number"]
    assert made.told[-1].endswith("frames (100 %)")


def test_what_a_broker_sends(tmp_path: Path) -> None:
    need_mosquitto()
    broker = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")
    stop, sending = threading.Event(), threading.Event()

    def publish() -> None:
        device = Publisher(broker)
        number = 0
        while not stop.is_set():
            number += 1
            device.send([json.dumps({"tempC": 20 + number % 5}).encode()], f"hall/oven-{number % 3}/state")
            sending.set()
            device.send([bytes([1, 2, 0xFF, number % 256])], "hall/valve-9/state")
            time.sleep(0.02)
        device.close()

    sender = threading.Thread(target=publish)
    sender.start()
    assert sending.wait(LIMIT_S)
    try:
        address = f"mqtt://127.0.0.1:{broker.address[1]}/hall/#"
        made = new_from(tmp_path / "works", address, "device-v1", 1.5)
    finally:
        stop.set()
        sender.join()
        broker.stop()
    plant = checked(tmp_path / "works")
    assert {device: row["productId"] for device, row in plant.master.devices.items()} == {
        **{f"oven-{n}": "oven-v1" for n in range(3)},
        "valve-9": "valve-v1",
    }
    assert made.told[-1].endswith("frames (100 %)")
    assert f'port: "${{MQTT_PORT:-{broker.address[1]}}}"' in (tmp_path / "works/plant.yaml").read_text()
    assert (tmp_path / "works/heard.jsonl").exists()


def test_a_broker_with_tls_and_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_mosquitto()
    authority = Authority(tmp_path, "authority")
    authority.issue("broker")
    passwords = tmp_path / "passwords"
    program = shutil.which("mosquitto_passwd")
    assert program is not None
    subprocess.run([program, "-b", "-c", str(passwords), "line", "s3cret"], check=True)
    settings = f"certfile {tmp_path}/broker.pem\nkeyfile {tmp_path}/broker.key\nallow_anonymous false\n"
    broker = start_broker(
        tmp_path / "broker", free_port(), kind="mosquitto", settings=f"{settings}password_file {passwords}\n"
    )
    stop = threading.Event()
    device = mqtt.Client(CallbackAPIVersion.VERSION2)
    device.tls_set(str(tmp_path / "authority.pem"))
    device.username_pw_set("line", "s3cret")
    device.connect("127.0.0.1", broker.address[1])
    device.loop_start()

    def publish() -> None:
        while not stop.wait(0.02):
            device.publish("hall/oven-1", b'{"tempC": 21.5}')

    sender = threading.Thread(target=publish)
    sender.start()
    address = f"mqtts://line@127.0.0.1:{broker.address[1]}/hall/#"
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("MQTT_PASSWORD", "s3cret")
    try:
        with pytest.raises(ConnectError, match=r"is not trusted: .*; SSL_CERT_FILE names the file"):
            new_from(tmp_path / "works", address, "device-v1", 0.5)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        where = f"127.0.0.1:{broker.address[1]}"
        with pytest.raises(ConnectError) as refused:
            new_from(tmp_path / "works", f"mqtts://{where}/hall/#", "device-v1", 0.5)
        told = f"; write mqtts://USER@{where}, the password in MQTT_PASSWORD"
        assert str(refused.value) == f"the broker {where} refuses: Not authorized{told}"
        new_from(tmp_path / "works", address, "device-v1", 0.5)
    finally:
        stop.set()
        sender.join()
        device.disconnect()
        device.loop_stop()
        broker.stop()
    written = (tmp_path / "works/plant.yaml").read_text()
    assert '    username: line\n    password: "${MQTT_PASSWORD:-}"\n    tls: true\n    ca_file: ' in written
    assert "s3cret" not in written
    assert list(checked(tmp_path / "works").master.devices) == ["oven-1"]


def connected(port: int) -> socket.socket | None:
    with suppress(OSError):
        return socket.create_connection(("127.0.0.1", port))
    return None


@pytest.mark.parametrize(
    ("framing", "before", "after"),
    [
        ("{kind: length_prefix, size: 2}", b"\x00\x04", b""),
        ("{kind: length_prefix, size: 2, order: le}", b"\x04\x00", b""),
        ("{kind: length_prefix, size: 4}", b"\x00\x00\x00\x04", b""),
        ("{kind: length_prefix, size: 1}", b"\x04", b""),
        ("{kind: stx_etx}", b"\x02", b"\x03"),
    ],
)
def test_devices_that_connect(tmp_path: Path, framing: str, before: bytes, after: bytes) -> None:
    port = free_port()
    stop = threading.Event()

    def send() -> None:
        with until(partial(connected, port), "the listener") as peer:
            for number in range(5, 15):
                peer.sendall(before + bytes([0x48, 0x30 + number, 0x31, 0xFF]) + after)
                time.sleep(0.01)
            stop.wait(LIMIT_S)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        made = new_from(tmp_path / "works", f"tcp://127.0.0.1:{port}", "pump-v1", 1.5)
    finally:
        stop.set()
        sender.join()
    assert made.told[2:] == ["  lengths: 4 bytes 10x", "decoded: 10 of 10 frames (100 %)"]
    assert f"framing: {framing}  " in (tmp_path / "works/plant.yaml").read_text()
    assert list(checked(tmp_path / "works").products) == ["pump-v1"]


@pytest.mark.parametrize(
    ("reads", "framing", "first"),
    [
        ([b"T=1\r", b"T=12\r", b"T=3\rT=4\r"], '{kind: delimiter, delimiter: "\\r"}', b"T=1"),
        ([b"W005KG;", b"W1010KG;", b"W15KG;"], '{kind: delimiter, delimiter: ";"}', b"W005KG"),
        ([b"\xa5\x5a\x01\xff", b"\xa5\x5a\x02\xff\xa5\x5a\x03\xff", b"\xa5\x5a\x02\xfe"],
         '{kind: fixed, size: 4, sync: "a55a"}', b"\xa5\x5a\x01\xff"),
        ([b"\x02T01\x03\x81", b"\x02T02\x03\x82"], "{kind: stx_etx, trailer: 1}", b"T01\x81"),
        ([b"\x01\xff\x02\xfe\xfd", b"\x01\x02", b"\x02\x09\x01"], "{kind: length_prefix, size: 1}", b"\xff"),
    ],
)  # fmt: skip
def test_framings_that_reads_tell(reads: list[bytes], framing: str, first: bytes) -> None:
    found, frames = framed([Read(("127.0.0.1", 4000), data, START) for data in reads])
    assert (found, frames[0].payload) == (framing, first)


@pytest.mark.parametrize(
    "reads",
    [
        [b"id=7|t=1|", b"id=7|t=2|", b"id=7|t=13|"],
        [b"\x01\x02\x03"] * 2,
    ],
)
def test_reads_that_tell_no_framing(reads: list[bytes]) -> None:
    with pytest.raises(ConfigError, match="no framing fits what was heard"):
        framed([Read(("127.0.0.1", 4000), data, START) for data in reads])


@pytest.mark.parametrize("reads", [[b'{"t":1}', b'{"t":2}', b'{"t":'], [b'{"t":{"a":"}{"}}{"t":{"a":"}{"}}']])
def test_json_with_nothing_between_is_told(reads: list[bytes]) -> None:
    with pytest.raises(
        ConfigError, match="JSON with nothing between one value and the next, which no framing"
    ):
        framed([Read(("127.0.0.1", 4000), data, START) for data in reads])


def test_bytes_that_no_framing_fits() -> None:
    with pytest.raises(ConfigError, match="no framing fits what was heard: the reads had 3 bytes 1x"):
        framed([Read(("127.0.0.1", 4000), b"\xff\xff\xff", START)])


def test_addresses() -> None:
    assert broker_of("capture.jsonl") is None
    assert broker_of("mqtt://broker") == Broker("broker", 1883, "#")
    assert broker_of("mqtt://me:p%40ss@[::1]:1884/a/+/#") == Broker("::1", 1884, "a/+/#", "me", "p@ss")
    assert broker_of("mqtts://broker/a") == Broker("broker", 8883, "a", tls=True)
    assert broker_of("mqttx://broker") is None
    with pytest.raises(ConfigError, match="names no host"):
        broker_of("mqtt:///x")
    with pytest.raises(ConfigError, match="'#' stands alone as the last level"):
        broker_of("mqtt://broker/#/x")
    port = free_port()
    with pytest.raises(ConnectError, match=f"the broker 127.0.0.1:{port} does not answer"):
        listen(Broker("127.0.0.1", port, "#"), 1.0)


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text("{}\nnothing\n")
    (tmp_path / "plant.yaml").write_text("plant: there\n")
    for source, text in (
        ("empty.jsonl", "no frame is in it"),
        ("bad.jsonl", "bad.jsonl:"),
        ("away.jsonl", "is neither an address, mqtt://HOST:PORT/FILTER, .*, nor a file"),
    ):
        with pytest.raises(ConfigError, match=text):
            new_from(tmp_path / "new", str(tmp_path / source), "device-v1", 1.0)
    with pytest.raises(ConfigError, match=r"opc\.tcp://HOST:PORT or a file is expected"):
        new_from(tmp_path / "new", "http://127.0.0.1", "device-v1", 1.0)
    with pytest.raises(ConfigError, match="exists already; choose another folder"):
        new_from(tmp_path, str(tmp_path / "empty.jsonl"), "device-v1", 1.0)
    assert not (tmp_path / "new").exists()


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_a_range_holds_what_was_heard(one: float, other: float) -> None:
    low, high = widened("x", min(one, other), max(one, other))
    assert float(low) <= max(min(one, other), -1e300)
    assert float(high) >= min(max(one, other), 1e300)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=4),
    max_leaves=8,
)
PAYLOADS = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=4).map(lambda b: json.dumps(b).encode()),
    st.lists(st.text(max_size=5), min_size=2, max_size=4).map(lambda cells: ",".join(cells).encode()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a1", "b2", "c3"]), PAYLOADS), min_size=1, max_size=8))
def test_whatever_devices_send_their_products_pass_check(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("heard")
    frames = [(device, HeardFrame(Address("s", device, -1, ()), data, 0)) for device, data in sent]
    for number, kind in enumerate(heard_kinds(frames)):
        try:
            text = product_text("some-v1", kind)
        except ConfigError:
            continue
        path = folder / f"p{number}.yaml"
        path.write_text(text, encoding="utf-8")
        _, problems = check_product(path)
        assert not problems.errors, problems.render()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12).filter(lambda t: "\0" not in t), min_size=1, max_size=5))
def test_whatever_the_topics_the_plant_passes_check(
    tmp_path_factory: pytest.TempPathFactory, topics: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("topics") / "works"
    frames = [HeardFrame(Address("line1", topic, -1, ()), b'{"x": 1}', START) for topic in topics]
    sources = heard_sources(frames)
    if list(of_sources(taken(frames, sources), sources)):
        make_plant(folder, frames)
        checked(folder)
    else:
        with pytest.raises(ConfigError, match="none is telemetry of a device"):
            make_plant(folder, frames)
