"""Alarms over HTTP: what is open, what happened, the figures, and the operator's way in.

    GET  /api/alarms                      open alarms; ?history=true: events, newest first; filters
    GET  /api/alarms/events?after=n       events as they come, oldest first
    GET  /api/alarms/find?prefix=p        alarms whose id begins so
    GET  /api/alarms/stats?from=&to=      alarm-system figures (flows/alarm_figures.py)
    POST /api/alarms/{alarm_id}/{action}  {"by", "why"?, "until"? | "for"?}

A POST journals the action and answers with what became of it: 200 accepted, 409 refused with the
state that it met, 404 an alarm never heard of, 400 a body that is none, 413 too large, 415 no JSON,
503 the journal takes nothing now, 504 no answer yet (the action stands in the journal all the same).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.exceptions import ClientException
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from connectors.errors import ConfigError, JournalError
from flows.alarm_actions import ACTIONS, ALARM_ID, ANSWER_S, checked, send
from flows.alarm_filters import AlarmFilters, Severity, State
from flows.views import Views

MAX_ACTION: Final = 16_384  # bytes of a POST's body
POLL_S: Final = 0.02

Limit = Annotated[int, QueryParameter(ge=1, le=10_000)]
Name = Annotated[str | None, QueryParameter(max_length=200)]


class ActionBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who acts and why; a shelving ends at `until` (a time) or after `for` (e.g. 2h)."""

    by: str
    why: str | None = None
    until: str | None = None
    duration: str | None = msgspec.field(name="for", default=None)


class ActionAnswer(msgspec.Struct):
    """What became of an action; `state` is that of the alarm after it, or the one it met."""

    id: str
    accepted: bool
    message: str
    alarm_id: str | None
    subject: str | None
    state: dict[str, Any] | None
    at_ms: int


class Failure(msgspec.Struct):
    """Why something is not done."""

    error: str


@get("/api/alarms", sync_to_thread=True)
def alarms(
    views: NamedDependency[Views],
    history: FromQuery[bool] = False,
    shadow: FromQuery[bool] = False,
    limit: Limit = 1000,
    rule: Name = None,
    device: Name = None,
    severity: FromQuery[Severity | None] = None,
    alarm_state: Annotated[State | None, QueryParameter(name="state")] = None,
    product: Name = None,
    site: Name = None,
) -> list[dict[str, Any]]:
    """Open alarms, the gravest and then the newest first; `history`: the newest events instead, newest
    first. A filter takes what equals it; `state`: active, unacknowledged, shelved, suppressed,
    latched or out-of-service. `shadow`: events of rules in mode shadow, as far as they are at hand (the
    historian has all)."""
    filters = AlarmFilters(rule, device, severity, alarm_state, product, site)
    if shadow:
        return views.shadow_events(limit, filters)
    return views.alarm_history(limit, filters) if history else views.open_alarms(filters)[:limit]


@get("/api/alarms/events", sync_to_thread=True)
def alarm_events(
    views: NamedDependency[Views],
    after: Annotated[str | None, QueryParameter(max_length=2_000)] = None,
    limit: Limit = 1000,
) -> dict[str, Any]:
    """{"last", "events"}: events after `after` (none: the newest), oldest first; ask again with `last`, a
    number, or with several shards a text, for those that follow."""
    try:
        last, events = views.alarm_events(after, limit)
    except ConfigError as error:
        raise ClientException(str(error)) from error
    return {"last": last, "events": events}


@get("/api/alarms/stats", sync_to_thread=True)
def stats(
    views: NamedDependency[Views],
    start: Annotated[int | None, QueryParameter(name="from", ge=0)] = None,
    end: Annotated[int | None, QueryParameter(name="to", ge=0)] = None,
) -> dict[str, Any]:
    """Alarm-system figures after ISA-18.2 and EEMUA 191 of `from` to `to`, milliseconds since 1970
    (default: the first event, now)."""
    if start is not None and end is not None and start >= end:
        raise ClientException("to: is not after from")
    return views.alarm_figures(start, end)


@get("/api/alarms/find", sync_to_thread=True)
def find(
    views: NamedDependency[Views],
    prefix: Annotated[str, QueryParameter(min_length=6, max_length=32, pattern="^[0-9a-f]+$")],
) -> list[dict[str, Any]]:
    """The newest `data` of each alarm whose id begins so, open or among the newest 10,000 events."""
    return views.find_alarms(prefix)


def _told(code: int, words: str) -> ResponseSpec:
    return ResponseSpec(data_container=Failure if code != 409 else ActionAnswer, description=words)


@post(
    "/api/alarms/{alarm_id:str}/{action:str}",
    status_code=200,
    request_max_body_size=MAX_ACTION,
    responses={
        200: ResponseSpec(data_container=ActionAnswer, description="accepted"),
        404: _told(404, "no alarm of that id is open or among the newest 10,000 events"),
        409: _told(409, "refused, with the state that it met"),
        503: _told(503, "the journal takes nothing now"),
        504: _told(504, "no answer yet; the action stands in the journal"),
    },
)
async def act(
    request: Request[Any, Any, Any],
    views: NamedDependency[Views],
    alarm_id: FromPath[str],
    action: FromPath[str],
    data: JSONBody[ActionBody],
) -> Response[Any]:
    """ack, shelve, unshelve, suppress, unsuppress, reset, out-of-service or in-service."""
    if (refused := not_json(request)) is not None:
        return refused
    if action not in ACTIONS:
        return failed(404, f"no action '{action[:40]}'; known: {', '.join(ACTIONS)}")
    if not ALARM_ID.match(alarm_id) or not await asyncio.to_thread(views.find_alarms, alarm_id):
        return failed(404, "no alarm of that id is open or among the newest 10,000 events")
    now_ms = int(time.time() * 1000)
    try:
        wanted = checked(action, alarm_id, data.by, data.why, data.until, data.duration, now_ms)
    except ConfigError as error:
        return failed(400, str(error))
    return await answered(views, wanted.data())


def not_json(request: Request[Any, Any, Any]) -> Response[Any] | None:
    """The refusal of a body that does not say that it is JSON, as a form of another site's page does not."""
    if request.content_type[0] == "application/json":
        return None
    return failed(415, "the body is JSON: Content-Type: application/json")


async def answered(views: Views, action: Mapping[str, Any]) -> Response[Any]:
    """Journal an action, and what the flow says to it: 200 accepted, 409 refused, 503 the journal takes
    nothing now, 504 no answer yet."""
    try:
        action_id = await asyncio.to_thread(send, views.data, action, "server")
    except JournalError as error:
        return failed(503, str(error))
    end = time.monotonic() + ANSWER_S
    while (answer := views.answer(action_id)) is None:
        if time.monotonic() > end:
            return failed(504, f"no answer in {ANSWER_S:.0f} s; action {action_id} stands in the journal")
        await asyncio.sleep(POLL_S)
    return Response(answer, status_code=200 if answer["accepted"] else 409)


def failed(code: int, text: str) -> Response[Any]:
    """Why something is not done, as a response."""
    return Response({"error": text}, status_code=code, media_type="application/json")


ALARM_HANDLERS = [alarms, alarm_events, stats, find, act]
