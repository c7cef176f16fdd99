"""Journals on Kafka as the supervisor sees them: what a first start waits for, and shards that are lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from connectors.errors import JournalError, PenstockError
from connectors.journal.blocking import BlockingJournalClient
from flows.processes import Child, last_error
from flows.status import read_status

LOOK_S: Final = 0.2


def await_copy(
    child: Child,
    connect: Callable[[], BlockingJournalClient],
    *,
    say: Callable[[str], None],
    goes_on: Callable[[], bool],
) -> None:
    """Until the copy of a journal process holds what stood in its partition at the start, however long the
    brokers are away, or until `goes_on`, which is asked at every look, is false. What it waits for is said
    whenever it changes. Raises `PenstockError` where the process ends."""
    told: dict[str, Any] = {}
    while goes_on():
        try:
            with closing(connect()) as journal:
                while goes_on():
                    status = journal.status()
                    if status["state"] in ("running", "full"):
                        return
                    if _differs(told, status):
                        told = status
                        say(f"{child.name}: {status['state']}; {status['detail']}")
                    time.sleep(LOOK_S)
        except JournalError as error:
            if child.pid is None:
                raise PenstockError(last_error(child.log) or str(error)) from error


def taken_by(data: Path, child: Child) -> str:
    """Why a journal process has ended that is not to be started again as it was: another machine runs its
    shard. "" of any other."""
    if child.process is None or child.pid is not None:
        return ""
    status = read_status(data).get(child.name, {})
    is_last = status.get("pid") == child.process.pid and status.get("state") == "taken"
    return str(status["detail"]) if is_last else ""


def _differs(told: dict[str, Any], status: dict[str, Any]) -> bool:
    """Another state, or another reason why the brokers are away."""
    if status["state"] != told.get("state"):
        return True
    return bool(status["state"] == "disconnected" and status["detail"] != told["detail"])
