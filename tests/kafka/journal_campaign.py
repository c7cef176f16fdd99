"""Kill campaigns of a plant whose journal is a partition of a real Kafka: flow, journal, receiver and
broker killed with SIGKILL at random moments.

`python -m tests.kafka.journal_campaign --kills 60 --seed 7 --folder NEW` runs a long one; the test suite
runs a short one. Beside what every campaign compares (tests/kill/campaign.py, tests/kafka/campaign.py),
a copy of the partition that begins with nothing is compared, byte by byte, with the one that the
plant worked with. At the end the broker is away for a while: nothing is acknowledged, health names it,
and all of it goes on by itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from flows.broker import Broker
from flows.health import readiness
from flows.undisturbed import Differences
from tests.kafka.campaign import KafkaCampaign
from tests.kafka.partition_journal import PartitionProcess, content
from tests.services.kafka import KafkaBroker

VICTIMS = ("flow", "journal", "kafka", "receiver-line1", "drainer-kafka")


class JournalCampaign(KafkaCampaign):
    """One plant under fire whose journal is in `kafka`."""

    def __init__(
        self,
        folder: Path,
        kills: int,
        seed: int,
        kafka: KafkaBroker,
        away_s: float,
        victims: tuple[str, ...] = VICTIMS,
    ) -> None:
        super().__init__(folder, kills, seed, "idempotent", kafka, away_s)
        self.victims = victims
        self._prefix = f"journaled-{seed}"

    def _run(self, broker: Broker, children: list[subprocess.Popen[bytes]]) -> Differences:
        path = self.plant / "plant.yaml"
        text = path.read_text("utf-8")
        topic = f"{self._prefix}.frames"
        journal = f'journal: {{kind: kafka, bootstrap: "${{KAFKA:-}}", topic: {topic}, max: 2GB}}'
        assert "journal: {max: 2GB}" in text
        path.write_text(text.replace("journal: {max: 2GB}", journal), "utf-8")
        return super()._run(broker, children)

    def _after_kills(self) -> None:
        # asked for until then: one that was killed a moment ago may not be seen to be dead yet
        self._until("the journal to be well", lambda: self._pid("kafka") is not None and self._is_well())
        self.kafka.kill()
        away = time.monotonic()
        self._until("health to name the brokers", lambda: self._journal()["state"] == "disconnected")
        assert not self._journal()["ready"], "what devices send is not taken in"
        assert self._journal()["detail"].endswith("sources wait"), self._journal()
        before = self._journaled()
        time.sleep(max(1.0, away + self.away_s - time.monotonic()))
        assert self._journaled() == before
        self.say(f"the broker was away for {time.monotonic() - away:.0f} s")
        self.kafka.start()
        self._until("frames to be taken in again", lambda: self._journaled() > before + 100)
        self._until("health to say so", self._is_well)

    def _is_well(self) -> bool:
        return str(self._journal()["state"]) == "running"

    def _journal(self) -> dict[str, Any]:
        found: dict[str, Any] = readiness(self.data)["components"]["journal"]
        return found

    def _compare(self, *arguments: Any) -> Differences:
        found = super()._compare(*arguments)
        kept = content(self.data)
        anew = self.folder / "anew"
        with PartitionProcess(anew, self.kafka.address, f"{self._prefix}.frames") as other:
            self._until("another copy", lambda: len(content(anew)) and content(anew)[-1][0] >= kept[-1][0])
            other.stop()
        same = {entry[0]: entry for entry in content(anew)}
        assert [same[entry[0]] for entry in kept] == kept, "another copy of the partition differs"
        self.say(f"another copy of the partition has the same {len(kept)} entries")
        return found


@click.command()
@click.option("--kills", type=int, default=60, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--away", type=float, default=60.0, show_default=True, help="seconds without a broker at the end"
)
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="a new folder for everything")
def main(kills: int, seed: int, away: float, folder: Path) -> None:
    """Run a kill campaign; exit code 1 when anything was lost, doubled or invented."""
    kafka = KafkaBroker(folder / "kafka")
    kafka.start()
    try:
        found = JournalCampaign(folder, kills, seed, kafka, away).run()
    finally:
        kafka.stop()
    for line in found.lines():
        click.echo(line)
    sys.exit(0 if found.clean else 1)


if __name__ == "__main__":
    main()
