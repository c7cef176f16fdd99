"""A drainer process over an output log that a test fills: what went in is known, so what must come out is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from connectors.journal.output import OutputWriter
from connectors.kafka.config import KafkaAlarmsConfig
from tests.kafka.reading import consumed, header
from tests.output.made import SPECS, devices, event, made_slice
from tests.waiting import LIMIT_S

EVENTS = 12  # an entry
TRANSITIONS = ("raised", "cleared", "closed")


class Drained:
    """The data directory, its output log and its drainer."""

    def __init__(self, data: Path, chosen: KafkaAlarmsConfig) -> None:
        self.data = data
        (data / "run").mkdir(parents=True)
        self.point(chosen)
        self.log = OutputWriter(data / "output", devices(10), SPECS, map_bytes=1 << 28)
        self.entry = 0
        self.put_ms = 0.0
        self.child: subprocess.Popen[bytes] | None = None

    def point(self, chosen: KafkaAlarmsConfig) -> None:
        """Where the drainer sends to from its next start on."""
        body = {"plant": chosen.events, "alarms": msgspec.to_builtins(chosen)}
        (self.data / "run" / "target-kafka.json").write_text(json.dumps(body))

    def put(self, count: int) -> None:
        """So many entries of EVENTS events each."""
        for _ in range(count):
            self.entry += 1
            self.log.write(made_slice(self.entry, self.entry * 20, 20, alarms=_events(self.entry)))
            self.log.commit_due()
        self.put_ms = time.time() * 1000

    def start(self) -> None:
        """Start the drainer."""
        with (self.data / "drainer.log").open("ab") as log:
            command = [sys.executable, "-m", "flows.drainer", str(self.data), "kafka"]
            self.child = subprocess.Popen(command, stderr=log)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.child is not None
        self.child.kill()
        self.child.wait()

    def stop(self) -> None:
        """SIGTERM; it must end well."""
        assert self.child is not None
        self.child.terminate()
        assert self.child.wait(LIMIT_S) == 0, (self.data / "drainer.log").read_text()[-2000:]

    def told(self) -> dict[str, Any]:
        """What the drainer that runs says about itself."""
        assert self.child is not None
        try:
            told: dict[str, Any] = json.loads((self.data / "run" / "drainer-kafka.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return told if told.get("pid") == self.child.pid else {}

    def sent(self) -> int:
        return int(self.told().get("sent", {}).get("alarms_total", 0))

    def is_done(self) -> bool:
        """The drainer has said, after the newest entry was put, that nothing waits."""
        told = self.told()
        return told.get("updated_ms", 0) > self.put_ms and told.get("lag_records") == 0

    def expected(self) -> list[dict[str, Any]]:
        """Every event that was put, in order."""
        return [dict(alarm.event) for entry in range(1, self.entry + 1) for alarm in _events(entry)]

    def compare(self, address: str, chosen: KafkaAlarmsConfig) -> None:
        """Every event once, in order by key; on `state` the newest of each key."""
        expected = self.expected()
        found = consumed(address, chosen.events)
        ids = [header(message, "ce_id") for message in found]
        assert len(ids) == len(set(ids))
        assert sorted(ids) == sorted(one["id"] for one in expected)
        by_key: dict[bytes, list[str]] = {}
        for message in found:
            by_key.setdefault(message.key(), []).append(header(message, "ce_sequence"))
        assert all(sequences == sorted(sequences) for sequences in by_key.values())
        newest = {m.key().decode(): header(m, "ce_id") for m in consumed(address, chosen.state)}
        assert newest == {one["subject"]: one["id"] for one in expected}


def _events(entry: int) -> list[Any]:
    return [
        event(entry * 20 + n, 0, TRANSITIONS[n % 3], f"press-{(n + entry) % 7:02d}") for n in range(EVENTS)
    ]
