"""Which components of a running plant are well, from what each tells about itself."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flows.status import read_status

STALE_S: Final = 10.0  # a status older than this: the process hangs
WELL: Final = frozenset({"running", "connected", "silent", "idle", "sending"})
DRAINER_AWAY: Final = frozenset({"connecting", "retrying"})


def is_alive(pid: object) -> bool:
    """Whether there is a process of that number."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_running(status: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the plant's supervisor is there."""
    return is_alive(status.get("supervisor", {}).get("pid"))


def readiness(data: Path) -> dict[str, Any]:
    """{"ready", "components": {name: {"ready", "state", "detail"}}}.

    Ready means: what devices send is taken in, and what was taken in is worked on. A target that is
    away slows nobody, so it is named (`target away`) and does not count, until its backlog is full;
    then it is the flow that holds back and says which target it waits for.
    """
    status = read_status(data)
    alive = is_running(status)
    found: dict[str, dict[str, Any]] = {}
    for name, child in status.get("supervisor", {}).get("components", {}).items():
        found[name] = _component(name, child if alive else {**child, "state": "stopped"}, status)
    return {
        "ready": bool(found) and all(one["ready"] for one in found.values()),
        "components": found,
    }


def _component(
    name: str, child: Mapping[str, Any], status: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    body = status.get(name, {})
    state, detail = str(body.get("state", "starting")), str(body.get("detail") or "")
    ended = child["state"] != "running" or not is_alive(child["pid"])
    age = time.time() - body["updated_ms"] / 1000 if "updated_ms" in body else 0.0
    full = (body.get("output") or {}).get("full")
    if child["state"] == "waiting" and child.get("pid") is None and child.get("last_exit") is None:
        state, detail = "waiting", "not started yet"
    elif ended:
        state = "stopped" if child["state"] == "stopped" else "ended"
        detail = f"see logs/{name}.jsonl" if state == "ended" else ""
    elif body.get("pid") != child["pid"]:
        state, detail = "starting", f"restarted {child['restarts']} times" if child["restarts"] else ""
    elif age > STALE_S:
        state, detail = "hanging", f"no sign of life for {age:.0f} s"
    elif full:
        state, detail = "backlog full", str(full)
    elif name.startswith(("drainer-", "archiver")) and state in DRAINER_AWAY:
        return {"ready": True, "state": "target away", "detail": detail}
    elif state == "full":
        detail = detail or "the journal is at its cap; sources wait until it has been trimmed"
    return {"ready": state in WELL, "state": state, "detail": detail}
