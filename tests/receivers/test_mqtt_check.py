"""`penstock check --connect` on brokers as people set them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
from click.testing import CliRunner, Result
from paho.mqtt.enums import CallbackAPIVersion

from connectors.mqtt import check
from connectors.mqtt.check import try_broker
from connectors.mqtt.config import MqttConfig
from flows.broker import Broker, start_broker
from flows.check_command import check as check_command
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.waiting import until

ACCEPTS = "the broker accepts"
DROPS = (
    "the broker drops messages that it has acknowledged: of 1200 sent while a session was away it kept 1000; "
    "set max_queued_messages 0 and max_queued_bytes to a size that you choose (mosquitto; elsewhere the "
    "length of a session's queue)"
)
FEW = (
    "the broker sends 20 messages and then waits for their acknowledgement, which comes with the journal's "
    "commit; set max_inflight_messages 1000 or more (mosquitto)"
)
# what mosquitto does when nobody sets anything (mosquitto.conf(5))
DEFAULTS = "max_queued_messages 1000\nmax_inflight_messages 20\n"


def broker(tmp_path: Path, settings: str) -> Broker:
    need_mosquitto()
    return start_broker(tmp_path / "broker", free_port(), kind="mosquitto", settings=settings)


def config(one: Broker, **keys: object) -> MqttConfig:
    return MqttConfig(host="127.0.0.1", port=one.address[1], subscribe=["plant/#"], **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "protocol", "warnings"),
    [
        (DEFAULTS, "3.1.1", [DROPS, FEW]),
        (DEFAULTS, "5", [DROPS]),  # our Receive Maximum counts, not the broker's setting
        ("", "3.1.1", []),  # as `make demo` sets it
        ("", "5", []),
    ],
)
def test_a_broker_that_drops_what_it_has_acknowledged(
    tmp_path: Path, settings: str, protocol: str, warnings: list[str]
) -> None:
    one = broker(tmp_path, settings)
    try:
        assert try_broker("works", config(one, protocol=protocol)) == (ACCEPTS, warnings)
    finally:
        one.stop()


def test_what_an_access_list_forbids(tmp_path: Path) -> None:
    rights = tmp_path / "rights"
    rights.write_text("topic read plant/#\n")
    rights.chmod(0o600)
    one = broker(tmp_path, f"acl_file {rights}\n")
    try:
        for protocol, why in (
            ("3.1.1", "messages under penstock/check/"),
            ("5", "the broker refuses to publish: Not authorized"),
        ):
            told, warnings = try_broker("works", config(one, protocol=protocol))
            assert told == ACCEPTS
            (words,) = warnings
            assert words.startswith(
                "whether the broker drops messages that it has acknowledged cannot be told"
            )
            assert why in words
    finally:
        one.stop()


def test_what_a_broker_of_protocol_5_says_of_itself(tmp_path: Path) -> None:
    one = broker(tmp_path, "max_qos 0\npersistent_client_expiration 1h\nmax_packet_size 5000\n")
    try:
        _, warnings = try_broker("works", config(one, protocol="5"))
    finally:
        one.stop()
    assert warnings[:2] == [
        "the broker offers QoS 0 only: it sends each message once, received or not",
        "the broker takes packets of 5000 bytes; max_payload is 1000000",
    ]


def test_the_check_takes_no_message_from_a_shared_subscription(tmp_path: Path) -> None:
    one = broker(tmp_path, "")
    heard: list[bytes] = []
    member = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="member")
    member.on_message = lambda client, userdata, message: heard.append(message.payload)
    subscribed: list[object] = []
    member.on_subscribe = lambda *told: subscribed.append(told)
    member.connect(*one.address)
    member.loop_start()
    member.subscribe("$share/group/plant/#", 1)
    until(lambda: subscribed, "the member's subscription")
    shared = msgspec.structs.replace(config(one), subscribe=["$share/group/plant/#"])
    checking = threading.Thread(target=try_broker, args=("works", shared))
    device = Publisher(one)
    sent: list[bytes] = []
    try:
        checking.start()
        while checking.is_alive():
            sent += [b"%d" % (len(sent) + number) for number in range(50)]
            device.send(sent[-50:])
            device.wait()
        until(lambda: len(heard) == len(sent), "every message", told=lambda: (len(heard), len(sent)))
        assert heard == sent
    finally:
        checking.join()
        device.close()
        member.disconnect()
        member.loop_stop()
        one.stop()


def test_qos_0_is_warned_of_without_a_probe(tmp_path: Path) -> None:
    one = broker(tmp_path, DEFAULTS)
    try:
        told, warnings = try_broker("works", config(one, qos=0))
    finally:
        one.stop()
    assert told == ACCEPTS
    assert warnings == [
        "qos: 0: what the broker cannot send at once is lost, and so is all of it while the receiver is "
        "away; use qos: 1"
    ]


def test_the_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    one = broker(tmp_path, "sys_interval 1\n")
    try:
        for protocol in ("3.1.1", "5"):
            try_broker("works", config(one, protocol=protocol))
    finally:
        one.stop()
    kept = (tmp_path / "broker" / "mosquitto.db").read_bytes()
    assert b"penstock-check" not in kept
    assert check.PROBE_TOPIC.encode() not in kept


def test_the_command_prints_warnings_and_does_not_fail(tmp_path: Path) -> None:
    one = broker(tmp_path, DEFAULTS)
    try:
        answer = connect(tmp_path, one.address[1])
    finally:
        one.stop()
    assert answer.return_value == 0, answer.output
    address = f"127.0.0.1:{one.address[1]}"
    for line in (
        f"ok    sources.line1  {address}  {ACCEPTS}",
        f"warn  sources.line1  {address}  {DROPS}",
        f"warn  sources.line1  {address}  {FEW}",
    ):
        assert line in answer.output.splitlines()


@pytest.mark.parametrize("state", ["dead", "stopped", "refusing"])
def test_a_broker_that_cannot_be_used(tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if state == "stopped":
        monkeypatch.setattr(check, "TIMEOUT_S", 1.0)
    one = broker(tmp_path, "" if state != "refusing" else "allow_anonymous false\n")
    port = one.address[1]
    if state == "dead":
        one.stop()
    if state == "stopped":
        os.kill(one.process.pid, signal.SIGSTOP)
    try:
        answer = connect(tmp_path, port)
    finally:
        if state == "stopped":
            os.kill(one.process.pid, signal.SIGCONT)
        one.stop()
    said = {
        "dead": "Connection refused",
        "stopped": "no answer within 5 s",
        "refusing": "the broker refuses: Not authorized; give 'username' and 'password'",
    }[state]
    assert f"FAIL  sources.line1  127.0.0.1:{port}  {said}" in answer.output.splitlines()
    assert answer.return_value == 3


def connect(tmp_path: Path, port: int) -> Result:
    """`penstock check --connect` of a plant with that broker."""
    arguments = [str(plant(tmp_path, port)), "--connect"]
    return CliRunner().invoke(check_command, arguments, standalone_mode=False)


def plant(tmp_path: Path, port: int) -> Path:
    folder = tmp_path / "works"
    (folder / "products").mkdir(parents=True)
    (folder / "plant.yaml").write_text(
        f"plant: works\nsources:\n  line1: {{kind: mqtt, host: 127.0.0.1, port: {port}, "
        "subscribe: ['plant/#'], topic: 'plant/{device_id}'}\n"
        f"historian: {{listen: '127.0.0.1:{free_port()}'}}\nserver: {{listen: '127.0.0.1:{free_port()}'}}\n"
    )
    (folder / "products" / "press.yaml").write_text(
        "productId: press\nversion: 1\ndecode: {format: json, metrics: data.metrics}\n"
        "metrics: {t: {unit: Cel}}\n"
    )
    (folder / "devices.csv").write_text("device_id,productId\na,press\n")
    return folder
