"""The MQTT receiver against a real broker."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ConfigError, JournalError
from connectors.fakes import MemoryAppender
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.source import MqttReceiver
from connectors.source import Surroundings
from flows.broker import Broker, start_broker
from operators.batch import FRAME_RETAINED
from operators.spec import SECOND
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.receivers.running import running, until
from tests.waiting import LIMIT_S


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    need_mosquitto()
    one = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")
    yield one
    one.stop()


def receiver(broker: Broker, **keys: Any) -> MqttReceiver:
    keys.setdefault("subscribe", ["plant/#"])
    config = MqttConfig(host=broker.address[0], port=broker.address[1], **keys)
    return MqttReceiver("line", config, plant="works")


def numbers(start: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, end)]


async def off_loop(work: Callable[[], Any]) -> None:
    await asyncio.to_thread(work)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_messages_come_in_order_and_what_is_not_durable_comes_again(broker: Broker, protocol: str) -> None:
    async def scene() -> None:
        source, appender = receiver(broker, protocol=protocol), MemoryAppender()
        assert source.client_id == "penstock-works-line"
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            device = Publisher(broker)
            device.send(numbers(0, 200))
            await until(lambda: len(appender.frames) == 200)
            appender.fill()
            device.send(numbers(200, 300))
            await until(lambda: source.status.frames == 300)
        assert [frame.payload for frame in appender.frames] == numbers(0, 200)
        assert {frame.topic for frame in appender.frames} == {"plant/press-01"}
        device.send(numbers(300, 350))  # while nobody is there
        await off_loop(device.wait)
        device.close()
        source, appender = receiver(broker, protocol=protocol), MemoryAppender()
        async with running(source, appender):
            await until(lambda: len(appender.frames) == 150)
            assert "session kept" in source.status.detail
        assert [frame.payload for frame in appender.frames] == numbers(200, 350)
        assert appender.controls == [("connected", {"source": "line"}), ("disconnected", {"source": "line"})]
        source, appender = receiver(broker, protocol=protocol), MemoryAppender()
        async with running(source, appender):  # everything was acknowledged
            await until(lambda: source.status.state == "connected")
            await asyncio.sleep(0.3)
        assert appender.frames == []

    asyncio.run(scene())


def test_retained_messages_are_flagged(broker: Broker) -> None:
    async def scene() -> None:
        device = Publisher(broker)
        device.send([b"old"], retain=True)
        await off_loop(device.wait)
        source, appender = receiver(broker), MemoryAppender()
        async with running(source, appender):
            await until(lambda: appender.frames)
            device.send([b"new"])
            await until(lambda: len(appender.frames) == 2)
        assert [(frame.payload, frame.flags) for frame in appender.frames] == [
            (b"old", FRAME_RETAINED),
            (b"new", 0),
        ]
        device.close()

    asyncio.run(scene())


def test_a_broker_that_dies_and_comes_back_with_nothing(broker: Broker, tmp_path: Path) -> None:
    """What it held for the source is gone with the session, which is told once, by the next process too."""
    config = MqttConfig(host="127.0.0.1", port=broker.address[1], subscribe=["plant/#"])

    def made() -> MqttReceiver:
        return MqttReceiver("line", config, plant="works", data=tmp_path)

    async def restart() -> None:
        broker.kill()
        (tmp_path / "broker" / "mosquitto.db").unlink(missing_ok=True)
        again = await asyncio.to_thread(start_broker, tmp_path / "broker", broker.address[1], "mosquitto")
        broker.process = again.process

    async def scene() -> None:
        source, appender = made(), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            await restart()
            await until(lambda: source.status.reconnects and source.status.state == "connected")
            device = Publisher(broker)
            device.send([b"after"])
            await until(lambda: appender.frames)
            device.close()
        gap = {
            "source": "line",
            "what": f"messages that 127.0.0.1:{broker.address[1]} held",
            **dict.fromkeys(("missing", "from", "to")),
        }
        assert [kind for kind, _ in appender.controls] == [
            *("connected", "disconnected", "gap"),
            *("connected", "disconnected"),
        ]
        assert ("gap", gap) in appender.controls
        await restart()
        source = made()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            assert source.status.detail.endswith(", session lost, a new one began")
            await until(lambda: source.status.extra.get("gaps_total") == 1)
        source = made()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
        assert [kind for kind, _ in appender.controls[5:]] == [
            *("gap", "connected", "disconnected"),
            *("connected", "disconnected"),
        ]

    asyncio.run(scene())


def test_a_wrong_password_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need_mosquitto()
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    data = tmp_path / "broker"
    data.mkdir()
    subprocess.run([tool, "-b", "-c", str(data / "passwords"), "press", "right"], check=True)
    (data / "passwords").chmod(0o644)
    one = start_broker(
        data,
        free_port(),
        kind="mosquitto",
        settings=f"allow_anonymous false\npassword_file {data}/passwords\n",
    )

    async def scene() -> None:
        with caplog.at_level(logging.INFO):
            source, appender = receiver(one, username="press", password="wr0ng-s3cret"), MemoryAppender()
            async with running(source, appender):
                await until(lambda: "Not authorized" in source.status.detail)
                assert source.status.state == "disconnected"
            good = receiver(one, username="press", password="right")
            async with running(good, appender):
                await until(lambda: good.status.state == "connected")
        assert "Not authorized" in caplog.text
        assert "wr0ng-s3cret" not in caplog.text

    try:
        asyncio.run(scene())
    finally:
        one.stop()


def test_tls(tmp_path: Path) -> None:
    need_mosquitto()
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    data = tmp_path / "broker"
    data.mkdir()
    for name, host in (("good", "127.0.0.1"), ("other", "127.0.0.1")):
        command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={host}".split()
        files = ["-keyout", f"{data}/{name}.key", "-out", f"{data}/{name}.crt"]
        subprocess.run(
            [*command, "-addext", f"subjectAltName=IP:{host}", *files], check=True, capture_output=True
        )
        (data / f"{name}.key").chmod(0o644)
    # the plain listener stays for the publisher; TLS is a second one
    port = free_port()
    pair = f"certfile {data}/good.crt\nkeyfile {data}/good.key\n"
    settings = f"listener {port} 127.0.0.1\nallow_anonymous true\n{pair}"
    one = start_broker(data, free_port(), kind="mosquitto", settings=settings)
    secure = Broker(("127.0.0.1", port), "mosquitto", one.process)

    async def scene() -> None:
        appender = MemoryAppender()
        source = receiver(secure, tls=True, ca_file=str(data / "good.crt"))
        async with running(source, appender):
            await until(lambda: source.status.state == "connected", source.status.detail)
            device = Publisher(one)
            sent = [b"x" * 5000 + b"%d" % number for number in range(300)]
            device.send(sent)
            await until(lambda: len(appender.frames) == 300)
            device.close()
        assert [frame.payload for frame in appender.frames] == sent
        keys: dict[str, Any] = {"subscribe": ["plant/#"], "tls": True, "ca_file": "good.crt"}
        config = MqttConfig(host=secure.address[0], port=port, **keys)
        of_plant = MqttReceiver.build("line", config, Surroundings("works", data, data / "kept"))
        async with running(of_plant, appender):  # a file of the plant's folder
            await until(lambda: of_plant.status.state == "connected", of_plant.status.detail)
        wrong = receiver(secure, tls=True, ca_file=str(data / "other.crt"))
        async with running(wrong, appender):
            await until(lambda: "certificate verify failed" in wrong.status.detail)
            assert "_ssl.c" not in wrong.status.detail
        with pytest.raises(ConfigError, match=r"TLS files /nowhere\.crt: No such file or directory"):
            await receiver(secure, tls=True, ca_file="/nowhere.crt").run(appender, asyncio.Event())

    try:
        asyncio.run(scene())
    finally:
        one.stop()


def test_the_socket_is_not_read_while_the_journal_is_behind(broker: Broker) -> None:
    async def scene() -> None:
        source, appender = receiver(broker, qos=0), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            appender.fill()
            device = Publisher(broker)
            await off_loop(lambda: device.send([b"x" * 500_000] * 200, qos=0))
            await until(lambda: source.status.frames * 500_000 >= 32_000_000)
            await asyncio.sleep(1.0)
            assert source.status.frames * 500_000 < 33_000_000
            appender.drain()
            await until(lambda: len(appender.frames) == 200)
            device.close()

    asyncio.run(scene())


def test_a_payload_beyond_a_cap_is_told_with_its_size(broker: Broker) -> None:
    async def scene() -> None:
        source, appender = receiver(broker), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            device = Publisher(broker)
            device.send([b"y" * 16_000_001, b"z" * 1_000_001, b"next" * 250_000])
            await until(lambda: len(appender.frames) == 3)
            device.close()
        assert [len(frame.payload) for frame in appender.frames] == [4096, 1_000_001, 1_000_000]
        assert [dict(frame.headers).get("too_large") for frame in appender.frames] == [
            "16000001 bytes; max_payload allows 1000000; the first 4096 are kept",
            "1000001 bytes; max_payload allows 1000000",
            None,
        ]

    asyncio.run(scene())


def test_silence_is_noticed_and_ends(broker: Broker) -> None:
    async def scene() -> None:
        source, appender = receiver(broker, silent_after=SECOND // 2), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "silent")
            device = Publisher(broker)
            device.send([b"x"])
            await until(lambda: source.status.state == "connected")
            device.close()

    asyncio.run(scene())


def test_a_journal_that_is_gone_ends_the_receiver(broker: Broker) -> None:
    async def scene() -> None:
        source, appender = receiver(broker), MemoryAppender(failure=JournalError("the journal is gone"))
        task = asyncio.create_task(source.run(appender, asyncio.Event()))
        device = Publisher(broker)
        await until(lambda: source.status.state == "connected")
        device.send([b"x"])
        with pytest.raises(JournalError, match="gone"):
            await asyncio.wait_for(task, LIMIT_S)
        device.close()

    asyncio.run(scene())


def test_a_broker_that_is_not_there_does_not_hold_the_stop() -> None:
    async def scene() -> None:
        config = MqttConfig(host="127.0.0.1", port=free_port(), subscribe=["#"])
        source, appender = MqttReceiver("line", config, plant="works"), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "disconnected")
            assert source.status.detail == f"127.0.0.1:{config.port}: Connection refused"
        assert appender.controls == []

    asyncio.run(scene())
