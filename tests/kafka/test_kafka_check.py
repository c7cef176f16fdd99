"""`penstock check --connect` on a real Kafka, and secrets in what a drainer says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from flows.check_command import check
from tests.kafka.drained import Drained
from tests.kafka.reading import config, target
from tests.services.kafka import PASSWORD, USER, KafkaBroker
from tests.waiting import LIMIT_S, until

BASE = Path(__file__).resolve().parents[1] / "golden" / "base"

PLANT = """
plant: line
sources:
  b: {{kind: tcp, listen: "127.0.0.1:0", framing: {{kind: length_prefix}}}}
historian: {{listen: "127.0.0.1:0"}}
server: {{listen: "127.0.0.1:0"}}
sinks:
  alarms: {alarms}
"""


def connected(folder: Path, alarms: dict[str, object]) -> tuple[int, list[str]]:
    shutil.copytree(BASE, folder, dirs_exist_ok=True)
    (folder / "plant.yaml").write_text(PLANT.format(alarms=json.dumps({"kind": "kafka", **alarms})))
    result = CliRunner().invoke(check, [str(folder), "--connect"], standalone_mode=False)
    return result.return_value, [line for line in result.stdout.splitlines() if "sinks.alarms" in line]


@pytest.mark.kafka
def test_check_connect_says_what_is_there_and_how_safe_it_is(broker: KafkaBroker, tmp_path: Path) -> None:
    chosen = config(broker.address, "checked")
    alarms = {"bootstrap": broker.address, "events": chosen.events, "state": chosen.state}
    code, lines = connected(tmp_path, {**alarms, "delivery": "transactional"})
    ok = "ok    sinks.alarms  "
    anew = "is not there; run makes it, 3 partitions, the brokers' replication"
    assert (code, lines) == (
        0,
        [
            f"{ok}{broker.address}  the brokers accept; delivery: transactional",
            f"{ok}checked.events  {anew}",
            f"{ok}checked.state  {anew}",
        ],
    )
    made = target(chosen)
    made.open()
    made.close()
    code, lines = connected(tmp_path, alarms)
    assert code == 0
    assert lines[1] == (
        f"{ok}checked.events  3 partitions, replication 1, min.insync.replicas 1: acks=all,"
        " and yet one lost broker may lose alarms; set min.insync.replicas to 2"
    )
    code, lines = connected(tmp_path, {**alarms, "partitions": 2})
    assert (code, lines) == (
        3,
        [
            f"FAIL  sinks.alarms  {broker.address}  the topic checked.events has 3 partitions,"
            " sinks.alarms.partitions says 2; write partitions: 3, or name another topic in sinks.alarms"
        ],
    )


@pytest.mark.kafka
def test_check_connect_tells_a_wrong_password_and_does_not_show_it(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.kafka.topics.ANSWER_S", 3.0)
    assert broker.certificates is not None
    (tmp_path / "secret").write_text("not-the-secret")
    login = {
        "bootstrap": f"127.0.0.1:{broker.login_port}",
        "security_protocol": "SASL_SSL",
        "username": USER,
        "password": f"${{file:{tmp_path / 'secret'}}}",
        "ca_file": str(broker.certificates.ca),
        "cert_file": str(broker.certificates.client),
        "key_file": str(broker.certificates.client_key),
    }
    code, lines = connected(tmp_path / "plant", login)
    assert code == 3
    assert "Kafka refuses the login: " in lines[0]
    assert "not-the-secret" not in lines[0]


@pytest.mark.kafka
def test_a_drainer_never_says_its_password(broker: KafkaBroker, tmp_path: Path) -> None:
    """Right and wrong, in its log and in its status; only the file of its configuration has it, for
    its owner alone."""
    assert broker.certificates is not None
    chosen = config(
        f"127.0.0.1:{broker.login_port}",
        "told",
        security_protocol="SASL_SSL",
        username=USER,
        password=PASSWORD,
        ca_file=str(broker.certificates.ca),
        cert_file=str(broker.certificates.client),
        key_file=str(broker.certificates.client_key),
    )
    drained = Drained(tmp_path / "data", chosen)
    drained.put(1)
    drained.start()
    until(drained.is_done)
    drained.stop()
    drained.point(msgspec.structs.replace(chosen, password="another-secret"))
    failed = subprocess.run(
        [sys.executable, "-m", "flows.drainer", str(drained.data), "kafka"],
        capture_output=True,
        timeout=LIMIT_S,
    )
    drained.log.close()
    assert failed.returncode == 3
    said = failed.stderr + (drained.data / "drainer.log").read_bytes()
    said += (drained.data / "run" / "drainer-kafka.json").read_bytes()
    assert b"Kafka refuses the login" in said
    assert PASSWORD.encode() not in said
    assert b"another-secret" not in said
