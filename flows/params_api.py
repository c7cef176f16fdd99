"""Parameters and history over HTTP.

    GET  /api/params            every device's parameters, with where each value comes from
    POST /api/params            {"device_id", "values": {name: value or null}, "by", "why"}
    GET  /api/history           versions of the plant that were applied, newest first

A POST journals one action a parameter (null takes back what was set) and answers
{"accepted", "answers": [...]}: 200 all accepted, 409 not all; 400 a body that is none, or values that the
plant would refuse (then none is journaled), 415 no JSON, 503 the journal takes nothing now, 504 no answer
yet (what was journaled counts all the same).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from connectors.errors import ConfigError
from flows import specs
from flows.alarm_actions import BY_MOST, WHY_MOST, checked_text
from flows.alarm_api import answered, failed, not_json
from flows.history_rows import history_rows
from flows.param_rows import parameter_rows, read_value, refusals, set_action
from flows.views import Views

MAX_BODY: Final = 65_536  # bytes of a POST's body
NAMES: Final = 256  # parameters of one POST


class ParamsBody(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a device, who sets them and why. A text is read as its parameter's type."""

    device_id: str
    values: dict[str, float | str | None]
    by: str
    why: str


@get("/api/params", sync_to_thread=True)
def params(views: NamedDependency[Views]) -> list[dict[str, Any]]:
    """Every device's parameters: by device in the order of devices.csv."""
    plant = views.plant_now()
    return [] if plant is None else parameter_rows(plant, views.params())


@post("/api/params", status_code=200, request_max_body_size=MAX_BODY)
async def set_params(
    request: Request[Any, Any, Any], views: NamedDependency[Views], data: JSONBody[ParamsBody]
) -> Response[Any]:
    """Set parameters of a device over devices.csv and the product, until they are taken back."""
    if (refused := not_json(request)) is not None:
        return refused
    try:
        actions = await asyncio.to_thread(_checked, views, data)
    except ConfigError as error:
        return failed(400, str(error))
    answers = []
    for action in actions:
        answer = await answered(views, action)
        if answer.status_code not in (200, 409):
            return answer
        answers.append(answer.content)
    accepted = all(answer["accepted"] for answer in answers)
    return Response({"accepted": accepted, "answers": answers}, status_code=200 if accepted else 409)


def _checked(views: Views, body: ParamsBody) -> list[dict[str, Any]]:
    """The actions, without their ids. Raises `ConfigError` for all that would be refused."""
    by, why = checked_text("by", body.by, BY_MOST), checked_text("why", body.why, WHY_MOST)
    if not 1 <= len(body.values) <= NAMES:
        raise ConfigError(f"values: {len(body.values)} parameters at once; 1 to {NAMES} are expected")
    plant = views.plant_now()
    if plant is None:
        raise ConfigError("no plant has been applied yet")
    spec = specs.parameters(plant)
    wanted = {
        name: read_value(spec, body.device_id, name, value) if isinstance(value, str) else value
        for name, value in body.values.items()
    }
    if refused := refusals(spec, views.params(), body.device_id, wanted):
        raise ConfigError("\n".join(refused))
    return [set_action(body.device_id, name, value, by, why) for name, value in wanted.items()]


@get("/api/history", sync_to_thread=True)
def history(views: NamedDependency[Views]) -> list[dict[str, Any]]:
    """apply_id, at, at_ms, by, why, sha256, entry, and what changed."""
    return history_rows(views.data)


PARAMS_HANDLERS = [params, set_params, history]
