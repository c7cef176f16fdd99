"""The alarm event as consumers see it, once: types, and the JSON Schema made of them.

`python -m flows.event_schema` prints `docs/alarm-events.schema.json`. A line of alarms.jsonl is `AlarmEvent`;
the body of a message of `alarm.events` and `alarm.state` is `AlarmData`, and the event's other
attributes are that message's headers. Keys without a value are null, never absent.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

PATH: Final = Path(__file__).resolve().parents[1] / "docs" / "alarm-events.schema.json"
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

Time = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        description="UTC, cut down to milliseconds",
    ),
]
Sequence = Annotated[
    str,
    Meta(
        pattern="^[0-9]{20}$",
        description="rises by subject for ever; compares as text; apply only a newer one",
    ),
]
Transition = Literal[
    "raised",
    "cleared",
    "acknowledged",
    "shelved",
    "unshelved",
    "suppressed",
    "unsuppressed",
    "out_of_service",
    "in_service",
    "reset",
    "escalated",
    "action_requested",
    "action_succeeded",
    "action_failed",
    "closed",
]
Severity = Literal["critical", "high", "medium", "low", "info"]
Quality = Literal["good", "uncertain", "bad", "absent"]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class AlarmState(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The dimensions of an alarm after the transition; they are independent of each other."""

    active: bool
    acknowledged: Annotated[bool, Meta(description="true where there is nothing to acknowledge")]
    latched: bool
    shelved_until: Time | None
    suppressed: bool
    out_of_service: bool


class Evidence(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the transition rests on: the reading at `position`, held values included."""

    expression: str
    values: dict[str, float | bool | str | None]
    quality: Quality
    position: Annotated[int, Meta(ge=0, description="ordinal of the frame in the journal")]


class AlarmData(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a message on both topics; on `alarm.state` the newest of its key, and no body at all
    (a tombstone) once it is closed."""

    alarm_id: Annotated[Hash, Meta(description="one occurrence, from raised to closed")]
    ruleId: str
    rule_version: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    productId: str | None
    device_id: Annotated[str | None, Meta(description="null for an alarm of a hub or a site")]
    hub_id: str | None
    site_id: str | None
    customer_id: str | None
    transition: Transition
    severity: Severity
    onset_time: Annotated[Time, Meta(description="when the condition became true")]
    event_time: Annotated[Time, Meta(description="when the transition happened, by the device's clock")]
    ingest_time: Annotated[Time, Meta(description="of the reading at evidence.position")]
    actor: Annotated[str | None, Meta(description="who did it; null: nobody, it followed from readings")]
    comment: str | None
    state: AlarmState
    evidence: Evidence
    message: str


class AlarmEvent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A CloudEvent 1.0 in JSON. On Kafka every attribute but `data` is a header `ce_` + its name."""

    specversion: Literal["1.0"]
    id: Annotated[Hash, Meta(description="equal: the same event again")]
    type: Annotated[str, Meta(pattern=f"^org\\.penstock\\.alarm\\.({'|'.join(get_args(Transition))})$")]
    source: Annotated[str, Meta(pattern="^/plants/[^/]+$")]
    subject: Annotated[
        str, Meta(description="{device, hub:... or site:...}/{ruleId}[/{metric or limit}]; the message's key")
    ]
    time: Annotated[Time, Meta(description="the same as data.event_time")]
    sequence: Sequence
    partitionkey: Annotated[str, Meta(description="the same as subject")]
    data: AlarmData


def event_schema() -> dict[str, Any]:
    """The JSON Schema: a line of alarms.jsonl; `#/$defs/AlarmData`: a body on Kafka."""
    (root,), parts = msgspec.json.schema_components([AlarmEvent], ref_template="#/$defs/{name}")
    for part in parts.values():
        if "description" in part:
            part["description"] = " ".join(part["description"].split())
    return {"$schema": DRAFT, "title": "Alarm events of Penstock", **root, "$defs": parts}


def event_schema_text() -> str:
    """What stands in docs/alarm-events.schema.json."""
    return json.dumps(event_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(event_schema_text())
