"""Kill campaigns with a real Kafka: flow, drainer and broker killed with SIGKILL at random moments.

`python -m tests.kafka.campaign --kills 60 --seed 7 --delivery transactional --folder NEW` runs a long one;
the test suite runs a short one. Beside what every campaign compares (tests/kill/campaign.py), both
topics are compared with the alarms of the undisturbed run: each event once, in order by key, and on
`state` the newest of each key. At the end the broker is away for a while, and nobody else waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jsonschema

from connectors.journal.output_store import cursor_path, read_cursor
from flows.broker import Broker
from flows.event_schema import event_schema
from flows.health import readiness
from flows.undisturbed import Differences, compare
from tests.kafka.reading import consumed, header
from tests.kill.campaign import Campaign
from tests.services.kafka import KafkaBroker

VICTIMS = ("flow", "drainer-kafka", "kafka")
KAFKA_BACK_S = 0.5


class KafkaCampaign(Campaign):
    """One plant under fire whose alarms go to `kafka`."""

    def __init__(
        self, folder: Path, kills: int, seed: int, delivery: str, kafka: KafkaBroker, away_s: float
    ) -> None:
        super().__init__(folder, kills, seed, victims=VICTIMS)
        self.kafka = kafka
        self.delivery = delivery
        self.away_s = away_s
        self._coming_back: threading.Thread | None = None
        self._prefix = f"campaign-{delivery}-{seed}"

    def _run(self, broker: Broker, children: list[subprocess.Popen[bytes]]) -> Differences:
        path = self.plant / "plant.yaml"
        text = path.read_text("utf-8")
        for topic in ("events", "state"):
            text = text.replace(f"{topic}: alarm.{topic}", f"{topic}: {self._prefix}.{topic}")
        text = text.replace(f"{self._prefix}.state", f"{self._prefix}.state\n    delivery: {self.delivery}")
        path.write_text(text, "utf-8")
        os.environ["KAFKA"] = self.kafka.address
        try:
            return super()._run(broker, children)
        finally:
            del os.environ["KAFKA"]
            if self._coming_back is not None:
                self._coming_back.join()

    def _until(self, what: str, holds: Callable[[], bool], seconds: float = 180.0) -> None:
        super()._until(what, holds, seconds)  # a broker may take its time on a busy machine

    def _pid(self, name: str) -> int | None:
        kafka = self._kafka_pid()  # brings it back, whoever is asked for
        return kafka if name == "kafka" else super()._pid(name)

    def _kafka_pid(self) -> int | None:
        if self._coming_back is not None:
            if self._coming_back.is_alive():
                return None
            self._coming_back = None
        assert self.kafka.process is not None
        if self.kafka.process.poll() is None:
            return self.kafka.process.pid
        self._coming_back = threading.Thread(target=self._bring_back)
        self._coming_back.start()
        return None

    def _bring_back(self) -> None:
        time.sleep(KAFKA_BACK_S)
        self.kafka.start()

    def _after_kills(self) -> None:
        """The broker is away: health names it, and alarms.jsonl and the historian go on."""
        self._until("the broker to be back", lambda: self._pid("kafka") is not None)
        self._until("all to be well", lambda: self._drainer()["state"] in ("idle", "sending"))
        self.kafka.kill()
        away = time.monotonic()
        self._until("health to name the target", lambda: self._drainer()["state"] == "target away")
        assert self._drainer()["ready"], "a target that is away slows nobody"
        assert "Kafka" in self._drainer()["detail"], self._drainer()
        before = self._cursors()
        self._until(
            "the others to go on",
            lambda: all(now > then for now, then in zip(self._cursors(), before, strict=True)),
        )
        time.sleep(max(0.0, away + self.away_s - time.monotonic()))
        assert self._drainer()["state"] == "target away"
        self.say(f"the broker was away for {time.monotonic() - away:.0f} s")
        self.kafka.start()

    def _drainer(self) -> dict[str, Any]:
        found: dict[str, Any] = readiness(self.data)["components"]["drainer-kafka"]
        return found

    def _cursors(self) -> tuple[int, int]:
        """How far alarms.jsonl and the historian are."""
        file = read_cursor(cursor_path(self.data, "alarms-file"))
        historian = read_cursor(cursor_path(self.data, "historian"))
        return (file.kinds["alarms"] if file else 0), (historian.kinds["telemetry"] if historian else 0)

    def _compare(self, *arguments: Any) -> Differences:
        found = super()._compare(*arguments)
        events = [json.loads(line) for line in (self.data / "alarms.jsonl").open("rb")]
        messages = consumed(self.kafka.address, f"{self._prefix}.events")
        found.kinds.append(
            compare(
                "events on Kafka",
                (f"{one['id']} {json.dumps(one['data'])}" for one in events),
                (f"{header(m, 'ce_id')} {json.dumps(json.loads(m.value()))}" for m in messages),
            )
        )
        body = jsonschema.Draft202012Validator({**event_schema(), "$ref": "#/$defs/AlarmData"})
        for message in messages:
            body.validate(json.loads(message.value()))
        order: dict[bytes, list[str]] = {}
        for message in messages:
            order.setdefault(message.key(), []).append(header(message, "ce_sequence"))
        assert all(sequences == sorted(sequences) for sequences in order.values())
        newest = {one["subject"]: one for one in events}
        state = {m.key().decode(): m for m in consumed(self.kafka.address, f"{self._prefix}.state")}
        found.kinds.append(
            compare(
                "newest states on Kafka",
                (f"{key} {one['id']} {one['data']['transition'] == 'closed'}" for key, one in newest.items()),
                (f"{key} {header(m, 'ce_id')} {m.value() is None}" for key, m in state.items()),
            )
        )
        return found


@click.command()
@click.option("--kills", type=int, default=60, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--delivery", type=click.Choice(["idempotent", "transactional"]), default="transactional")
@click.option(
    "--away", type=float, default=120.0, show_default=True, help="seconds without a broker at the end"
)
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="a new folder for everything")
def main(kills: int, seed: int, delivery: str, away: float, folder: Path) -> None:
    """Run a kill campaign; exit code 1 when anything was lost, doubled or invented."""
    kafka = KafkaBroker(folder / "kafka")
    kafka.start()
    try:
        found = KafkaCampaign(folder, kills, seed, delivery, kafka, away).run()
    finally:
        kafka.stop()
    for line in found.lines():
        click.echo(line)
    sys.exit(0 if found.clean else 1)


if __name__ == "__main__":
    main()
