"""What an operator does to an alarm: checked, journaled, and answered by the flow.

An action becomes a journal entry (`action`), so that it survives, replays and stands in its place
among the readings. The rules stage works on it there, and the output store keeps its answer by the
action's id: accepted, or refused with the state that it met.
"""

from __future__ import annotations

import re
import time
import unicodedata
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.errors import ConfigError
from connectors.journal.blocking import BlockingJournalClient
from flows.plant_tests import parse_time
from flows.shards import shard_folders
from flows.views import Views
from operators.convert import parse_duration

ACTIONS: Final = {
    # as it is written at the command line and in a path: (in the journal, what it does)
    "ack": ("ack", "acknowledge"),
    "shelve": ("shelve", "take out of sight for a while"),
    "unshelve": ("unshelve", "end a shelving before its time"),
    "suppress": ("suppress", "suppress until unsuppressed"),
    "unsuppress": ("unsuppress", "end a suppression"),
    "reset": ("reset", "reset a latched alarm that is no longer active"),
    "out-of-service": ("out_of_service", "take out of service"),
    "in-service": ("in_service", "put back into service"),
}
ALARM_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
ANSWER_S: Final = 30.0  # how long an answer is waited for; a flow that was just started reads a backlog first
CONNECT_S: Final = 5.0
POLL_S: Final = 0.01
BY_MOST: Final = 100
WHY_MOST: Final = 1000
_REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, surrogates, line and paragraph ends
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # of text direction


class Action(msgspec.Struct, frozen=True):
    """A checked action. until_ms: milliseconds since 1970, of a shelving alone."""

    action: str  # a key of ACTIONS
    alarm_id: str
    by: str
    why: str | None = None
    until_ms: int | None = None

    def data(self) -> dict[str, Any]:
        """What stands in the journal, beside the action's id."""
        return {
            "kind": "alarm",
            "action": ACTIONS[self.action][0],
            "alarm_id": self.alarm_id,
            "by": self.by,
            "why": self.why,
            "until_ms": self.until_ms,
        }


def checked(
    action: str,
    alarm_id: str,
    by: str,
    why: str | None,
    until: str | None,
    duration: str | None,
    now_ms: int,
) -> Action:
    """The action that is asked for; raises `ConfigError` that says what is wrong with it.

    until: `2026-03-01T17:00:00Z`; duration: `2h`, from `now_ms` on; of them one at most, and only
    with `shelve`; with none of them the rule's `max_shelve` ends it.
    """
    if action not in ACTIONS:
        raise ConfigError(f"action: no action '{action[:40]}'; known: {', '.join(ACTIONS)}")
    if not ALARM_ID.match(alarm_id):
        raise ConfigError("alarm_id: 32 digits from 0 to 9 and a to f are expected")
    if (until is not None or duration is not None) and action != "shelve":
        raise ConfigError(f"{'until' if until is not None else 'for'}: only a shelving ends by itself")
    return Action(
        action,
        alarm_id,
        checked_text("by", by, BY_MOST),
        None if why is None or not why.strip() else checked_text("why", why, WHY_MOST),
        _until_ms(until, duration, now_ms),
    )


def checked_text(key: str, text: str, most: int) -> str:
    """A text that people gave, without blanks around it. Raises `ConfigError`."""
    stripped = text.strip()
    if not stripped:
        raise ConfigError(f"{key}: is empty; name who acts")
    if len(stripped) > most:
        raise ConfigError(f"{key}: {len(stripped)} characters; at most {most}")
    for place, character in enumerate(stripped, 1):
        if unicodedata.category(character) in _REFUSED or character in _TURNING:
            raise ConfigError(f"{key}: character {place} is a control (U+{ord(character):04X}); leave it out")
    return stripped


def _until_ms(until: str | None, duration: str | None, now_ms: int) -> int | None:
    if until is not None and duration is not None:
        raise ConfigError("until: stands beside 'for'; leave one out")
    if duration is not None:
        length = parse_duration(duration)
        if isinstance(length, str):
            raise ConfigError(f"for: '{duration[:60]}' {length}")
        if length < 1_000_000:
            raise ConfigError("for: must be longer than nothing, e.g. 2h")
        return now_ms + length // 1_000_000
    if until is None:
        return None
    at = None if until.startswith("+") else parse_time(until, 0)
    if at is None:
        raise ConfigError(f"until: '{until[:60]}' is no time; write 2026-03-01T17:00:00Z")
    if at <= now_ms:
        raise ConfigError(f"until: {until} has passed")
    return at


def send(data: Path, action: Mapping[str, Any], name: str = "cli") -> str:
    """Journal an action, in each of the plant's shards; durable when it returns the action's id. Raises
    `JournalError` where no journal process answers, `JournalFull` while it takes nothing."""
    action_id = uuid.uuid4().hex
    for folder in shard_folders(data):
        with BlockingJournalClient(folder, name, timeout=CONNECT_S) as client:
            client.control("action", {"id": action_id, **action})
    return action_id


def wait(views: Views, action_id: str, seconds: float = ANSWER_S) -> dict[str, Any] | None:
    """The flow's answer; None where none has come within `seconds`."""
    end = time.monotonic() + seconds
    while (answer := views.answer(action_id)) is None:
        if time.monotonic() > end:
            return None
        time.sleep(POLL_S)
    return answer


def find_one(found: list[dict[str, Any]], prefix: str) -> str:
    """The alarm_id that a prefix stands for, among `Views.find_alarms`. Raises `ConfigError`."""
    if not found:
        raise ConfigError(f"no alarm '{prefix}' is open or among the newest 10,000 events")
    if len(found) > 1:
        some = ", ".join(f"{one['alarm_id'][:16]} ({subject_of(one)})" for one in found[:4])
        raise ConfigError(f"'{prefix}' begins the ids of {len(found)} alarms; write more of it: {some}")
    return str(found[0]["alarm_id"])


def subject_of(data: Mapping[str, Any]) -> str:
    """Device and rule of an event's data."""
    return f"{data['device_id'] or data['hub_id'] or data['site_id'] or data['productId']}/{data['ruleId']}"
