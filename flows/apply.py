"""Bringing a plant into a plant that runs: one journal entry, then waiting until all have taken it.

The journal is the plant's own: `apply` appends the whole folder as one entry of kind `plant`, with an
apply id, who and why. The flow takes it exactly there; the supervisor sees it and starts anew what has
to. Nothing is done by this process but the append, so it may be killed at any moment.
"""

from __future__ import annotations

import getpass
import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from connectors.errors import ConfigError, JournalError, JournalFull, PenstockError
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.reader import AppliedPlant, JournalReader
from flows.change import Plan, plan_change
from flows.health import is_running, readiness
from flows.plant_file import Plant
from flows.plant_reader import load_plant
from flows.shards import shard_folders
from flows.status import component_name, read_status
from flows.views import Views

LOOK_S: Final = 0.1
TAKEN_WITHIN_S: Final = 120.0
LONGEST: Final = 2_000  # characters of `by` and `why`


def user_name() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def plant_control(plant: Plant, by: str, why: str, apply_id: str | None = None) -> dict[str, Any]:
    """The data of the journal entry that applies a plant."""
    about = {"apply_id": apply_id or uuid.uuid4().hex, "by": by[:LONGEST], "why": why[:LONGEST]}
    return {"sha256": plant.sha256, "files": dict(plant.files), **about}


def resolved_plant(files: Mapping[str, bytes]) -> Plant:
    """The plant of a bundle with this process's environment in it. Raises `ConfigError`."""
    plant, problems = load_plant(files, os.environ, applied=True)
    if plant is None:
        raise ConfigError(f"the applied plant cannot be run here:\n{problems.render()}")
    return plant


def applied_plant(data: Path) -> AppliedPlant:
    """The newest applied plant of a data directory. Raises `PenstockError` where there is none."""
    try:
        with closing(JournalReader(shard_folders(data)[0] / "journal")) as reader:
            applied = reader.last_plant()
    except JournalError:
        applied = None
    if applied is None:
        raise PenstockError(f"no plant has been applied in {data}; start it with: penstock run PLANT")
    return applied


def check_running(data: Path) -> None:
    """Raises `PenstockError` where no supervisor runs."""
    if not is_running(read_status(data)):
        raise PenstockError("the plant is not running; start it with: penstock run PLANT --apply")


def make_plan(data: Path, after: Plant) -> Plan:
    """What it would do to the plant over a data directory to become another one."""
    before = resolved_plant(applied_plant(data).files)
    alarms: list[dict[str, Any]] = []
    waiting: dict[str, dict[str, float]] = {}
    for folder in shard_folders(data):
        views = Views(folder)
        try:
            alarms += views.open_alarms()
            for target, told in views.waiting().items():
                before_it = waiting.get(target, {}).get("records", 0)
                waiting[target] = {"records": before_it + told["records"]}
        finally:
            views.close()
    return plan_change(before, after, alarms, waiting)


def append_plant(data: Path, plant: Plant, by: str, why: str) -> str:
    """Append the entry, to the first shard, from where the supervisor brings it to the others; durable
    when it returns the apply id. Raises JournalFull, JournalError."""
    control = plant_control(plant, by, why)
    first = shard_folders(data)[0]
    try:
        with BlockingJournalClient(first, "apply") as client:
            client.control("plant", control)
    except JournalFull as error:
        raise JournalFull("the journal is full; see penstock top, and apply again once it is not") from error
    except JournalError:
        time.sleep(1.0)  # whether it was written before the connection broke is in the journal
        with closing(JournalReader(first / "journal")) as reader:
            if all(one.apply_id != control["apply_id"] for one in reader.history()):
                raise
    return str(control["apply_id"])


def await_taken(data: Path, sha256: str, say: Callable[[str], None]) -> None:
    """Until the flow works under the plant and the supervisor has started what had to. `say` is told
    what is waited for. Raises `PenstockError` where that fails, or takes too long."""
    until = time.monotonic() + TAKEN_WITHIN_S
    told = ""
    while True:
        waits, failed = _waits_for(data, sha256)
        if failed:
            raise PenstockError(failed)
        if not waits:
            return
        if waits != told:
            told = waits
            say(f"waiting for {waits}")
        if time.monotonic() > until:
            raise PenstockError(
                f"the plant is applied, but after {TAKEN_WITHIN_S:.0f} s it still waits for {waits}; "
                "penstock top shows what is not well"
            )
        time.sleep(LOOK_S)


def _waits_for(data: Path, sha256: str) -> tuple[str, str]:
    """What is not done yet, and what went wrong; "" where nothing."""
    status = read_status(data)
    if not is_running(status):
        return "", "the plant stopped; what was applied is taken at its next start"
    here = status["supervisor"].get("components", {})
    for folder in shard_folders(data):
        name = component_name(folder, "flow")  # of a shard that runs on another machine there is none
        if name in here and read_status(folder).get("flow", {}).get("sha256") != sha256:
            return f"the {name} to take the plant", ""
    supervisor = status["supervisor"]
    change = supervisor.get("change", {})
    if change.get("state") == "failed":
        return "", f"the flow has taken the plant, but the processes stay as they were: {change['detail']}"
    if supervisor.get("sha256") != sha256 or change.get("state") == "restarting":
        return "processes to restart", ""
    starting = [
        name for name, one in readiness(data)["components"].items() if one["state"] in ("starting", "ended")
    ]
    return (f"{', '.join(starting)} to start" if starting else "", "")
