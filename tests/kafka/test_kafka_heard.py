"""`penstock new --from kafka://...`: what topics hold, filled by kcat, becomes a plant that passes `check`
and decodes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from connectors.errors import ConfigError
from flows.check_command import check_folder
from flows.heard_kafka import Topics, topics_at
from flows.new_command import new
from flows.plant_file import Plant
from tests.conformance.subject_kafka import made_topic
from tests.services.kafka import KafkaBroker
from tests.waiting import LIMIT_S


def filled(broker: KafkaBroker, topic: str, *lines: str, partitions: int = 2) -> str:
    """Messages `key|value` in a topic of that beginning, written by kcat; its name."""
    if shutil.which("kcat") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no kcat here")
        pytest.skip("no kcat here")
    name = f"{topic}-{time.monotonic_ns()}"
    made_topic(broker, name, partitions)
    command = [
        "kcat",
        "-P",
        "-b",
        broker.address,
        "-t",
        name,
        "-q",
        *(["-K", "|"] if "|" in lines[0] else []),
    ]
    subprocess.run(
        command, input="".join(f"{line}\n" for line in lines).encode(), check=True, timeout=LIMIT_S
    )
    return name


def checked(folder: Path) -> Plant:
    plant, problems = check_folder(folder)
    assert plant is not None, problems.render()
    assert problems.render() == ""
    return plant


def made(folder: Path, broker: KafkaBroker, topics: str) -> list[str]:
    """What is said of a plant made of topics."""
    address = f"kafka://{broker.address}/{topics}"
    ran = CliRunner().invoke(new, [str(folder), "--from", address, "--for", "2"])
    assert ran.exit_code == 0, ran.output
    return ran.stdout.splitlines()


def press(number: int) -> str:
    return json.dumps({"t": int(time.time() * 1000) + number, "tempC": 60 + number, "mode": "run"})


@pytest.mark.kafka
def test_a_topic_keyed_by_device(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = filled(broker, "keyed", *(f"press-{number % 3}|{press(number)}" for number in range(30)))
    told = made(tmp_path / "works", broker, topic)
    assert told[0] == "press-v1: json, 30 frames of 3 devices"
    assert told[1] == "  devices: press-0, press-1, press-2"
    assert told[-1] == "decoded: 30 of 30 frames (100 %)"
    checked(tmp_path / "works")
    text = (tmp_path / "works" / "plant.yaml").read_text()
    assert (
        f'  line1:\n    kind: kafka\n    bootstrap: "${{KAFKA:-{broker.address}}}"\n    topic: {topic}\n'
        "    device: key                    # the key of a message names its device\n"
    ) in text


@pytest.mark.kafka
def test_topics_without_keys_whose_payloads_name_devices_or_none_does(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    named = filled(
        broker, "named", *(json.dumps({"sn": f"pump-{n % 2}", "flow": n, "t": f"{n}"}) for n in range(8))
    )
    tall = filled(
        broker,
        "tall",
        *(json.dumps([{"device": f"fan-{d}", "rpm": 100 * n} for d in range(2)]) for n in range(4)),
    )
    nobody = filled(broker, "nobody", *(json.dumps({"level": n}) for n in range(4)))
    told = made(tmp_path / "works", broker, f"{named},{tall},{nobody}")
    assert told[-1] == "decoded: 16 of 16 frames (100 %)", told
    plant = checked(tmp_path / "works")
    devices = {name: source.device for name, source in plant.sources.items()}
    assert devices == {named: "payload:sn", tall: "topic", nobody: "topic"}
    rows = (tmp_path / "works" / "devices.csv").read_text().splitlines()[1:]
    assert {row.partition(",")[0] for row in rows} == {"pump-0", "pump-1", "fan-0", "fan-1", nobody}


@pytest.mark.kafka
def test_keys_that_name_messages_are_no_devices(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = filled(broker, "ids", *(f"message-{n:08}|{json.dumps({'level': n})}" for n in range(25)))
    assert made(tmp_path / "works", broker, topic)[1] == f"  devices: {topic}"


@pytest.mark.kafka
def test_a_topic_that_is_not_there_and_one_that_is_empty(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = f"empty-{time.monotonic_ns()}"
    made_topic(broker, topic)
    address = f"kafka://{broker.address}"
    for text, told in (
        ("", "--from: the address names no topic; these are: "),
        ("/not-there", "--from: the topic not-there is not there; these are: "),
    ):
        ran = CliRunner().invoke(new, [str(tmp_path / "a"), "--from", f"{address}{text}"])
        assert isinstance(ran.exception, ConfigError)
        assert str(ran.exception).startswith(told)
    ran = CliRunner().invoke(new, [str(tmp_path / "a"), "--from", f"{address}/{topic}", "--for", "1"])
    assert str(ran.exception) == f"{broker.address}: nothing is in {topic}, and nothing came in 1 s"
    assert not (tmp_path / "a").exists()


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert topics_at("mqtt://a/b") is None
    assert topics_at("kafka://k1,k2:9093/a,b") == Topics("k1:9092,k2:9093", ("a", "b"))
    monkeypatch.setenv("KAFKA_PASSWORD", "p w")
    found = topics_at("kafkas://us%40er@k:1/a?mechanism=PLAIN")
    assert found == Topics("k:1", ("a",), "us@er", "p w", True, "PLAIN")
    assert found.protocol() == "SASL_SSL"
    for text, told in (
        ("kafka:///a", "--from: '' is no address of a broker; write kafka://HOST:PORT/TOPIC"),
        ("kafka://k:0/a", "--from: 'k:0' is no address of a broker; write kafka://HOST:PORT/TOPIC"),
        (
            "kafka://k:1/a?x=1",
            "--from: '?x=1': ?mechanism=PLAIN|SCRAM-SHA-256|SCRAM-SHA-512 is expected",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            topics_at(text)
        assert str(caught.value) == told
