"""Which processes a change starts anew in a plant that runs, what is refused, and what is told."""

from __future__ import annotations

import json
from pathlib import Path

from tests.change.plants import FILES, changed
from tests.change.running import RunningPlant
from tests.waiting import until

QUIET = changed(
    FILES, ("products/press.yaml", "tempHigh: 80", "tempHigh: 140"), ("rules/hot.yaml", "> 5000", "> 5900")
)
TWO = changed(
    QUIET,
    (
        "plant.yaml",
        "historian:",
        '  line2: {kind: tcp, listen: "127.0.0.1:${LINE2_PORT:-7902}", device: payload:id, '
        'framing: {kind: delimiter, delimiter: "\\n"}}\nhistorian:',
    ),
    ("plant.yaml", "    product: press\n", '    product: press\n    acknowledge: "06"\n'),
)
NAMED = changed(QUIET, ("plant.yaml", "plant: change-line", "plant: other"))
LARGE = changed(QUIET, ("plant.yaml", "max: 100MB", "max: 200MB"))


def test_only_what_has_to_starts_anew(tmp_path: Path) -> None:
    with RunningPlant(tmp_path, QUIET) as plant:
        names = ("journal", "flow", "historian", "server", "drainer-historian", "receiver-line1")
        before = {name: until(lambda name=name: plant.pid(name), name) for name in names}
        plant.write(TWO)
        plan = json.loads(plant.call("apply", "--dry-run", "--json"))
        assert (plan["restarts"], plan["starts"]) == (["receiver-line1"], ["receiver-line2"])
        assert plan["apply_id"] is None
        assert plant.call("apply", "--why", "a second line").splitlines()[:-1] == [
            f"plant change-line: {plan['before'][:12]} -> {plan['after'][:12]}",
            "  source  line1  changed   restarts receiver-line1",
            "      acknowledge: added 06",
            "  source  line2  added     starts receiver-line2",
            "2 changes; open alarms: 0 kept, 0 closed; restarts receiver-line1; starts receiver-line2",
        ]
        assert plant.pid("receiver-line2")
        after = {name: plant.pid(name) for name in names}
        assert {name for name in names if before[name] != after[name]} == {"receiver-line1"}
        heard = plant.position()
        until(lambda: plant.position() > heard + 10, "frames after the restart")

        plant.write(QUIET)
        told = plant.call("apply", "--why", "without")
        assert "  source  line2  removed   stops receiver-line2" in told.splitlines()
        assert plant.pid("receiver-line2") is None
        assert not (plant.data / "run" / "source-line2.json").exists()
        plant.write(NAMED)
        told = plant.call("apply", "--why", "no", code=1)
        assert told.splitlines()[-1].startswith("plant.yaml  plant: 'change-line' cannot become 'other'")

        plant.write(LARGE)
        plant.call("apply", "--why", "more air")
        assert plant.pid("journal") != before["journal"]
        assert plant.pid("flow") == before["flow"]
        heard = plant.position()
        until(lambda: plant.position() > heard + 10, "frames after the journal's restart")

        told = plant.call("params set", "p1", "tempHig=1", "--why", "x", code=1)
        assert told == "no parameter 'tempHig' of press; did you mean 'tempHigh'?\n"
        assert plant.call("params set", "p1", "tempHigh=70", "--why", "x") == "tempHigh of p1 is 70\n"
        told = plant.call("params reset", "p1", "--why", "x")
        assert told == "tempHigh of p1 is what devices.csv or its product says\n"
    assert plant.supervisor.returncode == 0
