"""Changes of a plant that runs, with frames on their way and processes killed around each: nothing is
lost, nothing comes twice, and a replay of the capture gives the same."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.change.plants import FILES, changed
from tests.change.running import RunningPlant
from tests.waiting import LIMIT_S, until

QUICK = changed(
    FILES,
    ("products/press.yaml", "every: 10s", "every: 5s"),
    ("rules/hot.yaml", "on_delay: 5s", "on_delay: 1s"),
)
MILL = QUICK["products/press.yaml"].replace("productId: press", "productId: mill")
FIRST = {
    **changed(
        QUICK,
        ("plant.yaml", "    product: press\n", ""),
        ("products/press.yaml", "  rpm: {range", "  torque: {}\n  rpm: {range"),
        ("products/press.yaml", "windows:\n", "windows:\n  - {every: 2s, aggregates: [count, mean, std]}\n"),
        ("rules/hot.yaml", "rpm > 5000", "rpm > 4000"),
    ),
    "products/mill.yaml": MILL,
    "devices.csv": "device_id,productId,hub_id,k\np1,press,h1,\np2,press,h2,3\np3,mill,h2,\n",
}
SECOND = {**FIRST, "rules/hot.yaml": FIRST["rules/hot.yaml"].partition("---\n")[0]}
THIRD = changed(SECOND, ("rules/hot.yaml", "severity: high", "severity: critical"))


def test_changes_while_frames_flow_and_processes_are_killed(tmp_path: Path) -> None:
    with RunningPlant(tmp_path, QUICK) as plant:
        until(lambda: (plant.data / "alarms.jsonl").exists(), "an alarm")
        first = plant.apply(FIRST, "a mill is new")
        plant.until_taken(FIRST)
        plant.call("params set", "p1", "tempHigh=95", "k=7", "--why", "summer", "--by", "kim")

        plant.write(SECOND)
        applying = plant.start("apply", "--why", "fast goes", "--yes")
        plant.kill("flow")
        assert applying.wait(LIMIT_S) == 0, plant.log("apply")
        plant.until_taken(SECOND)

        plant.write(THIRD)
        applying = plant.start("apply", "--why", "graver", "--yes")
        until(lambda: len(json.loads(plant.call("history", "--json"))) == 4, "the entry")
        os.kill(plant.supervisor.pid, signal.SIGKILL)
        plant.supervisor.wait(LIMIT_S)
        applying.wait(LIMIT_S)
        until(lambda: plant.pid("journal") is None, "the others to end with it")
        plant.write({**THIRD, "rules/hot.yaml": "ruleId: [broken"})
        plant.supervisor = plant.start("run")  # the applied plant, whatever the folder says by now
        errors = "the folder has errors, so the applied plant runs without it"
        until(lambda: errors in plant.log("run"), "the folder to be read")
        plant.until_ready()
        plant.write(THIRD)
        plant.until_taken(THIRD)

        rows = json.loads(plant.call("params", "--device", "p1", "--json"))
        assert {row["param"]: (row["value"], row["source"]) for row in rows} == {
            "tempHigh": (95.0, "set"),
            "k": (7.0, "set"),
            "note": ("none", "product"),
        }
        plant.call("rollback", first, "--why", "not graver", "--by", "kim", "--write-folder")
        plant.until_taken(FIRST)
        history = json.loads(plant.call("history", "--json"))
        assert [(row["by"], row["why"]) for row in history[:1] + history[-2:]] == [
            ("kim", "not graver"),
            ("kim", "a mill is new"),
            (history[-1]["by"], "first start"),
        ]
        assert history[0]["sha256"] == history[-2]["sha256"]
        found = plant.compared()
    assert found.clean, "\n".join(found.lines())
    told = {kind.what: kind.found for kind in found.kinds}
    assert told["alarm events"] > 2
    assert min(count for what, count in told.items() if what.startswith("readings of")) > 20
