"""Master data over HTTP.

    GET  /api/master/{table}    rows of devices, sites or customers as they are, in their order
    POST /api/master            {"changes": [{"op", "table", "data" | "keys"}], "by", "why"?}

A POST journals the changes and answers with what became of them: 200 accepted, 409 refused (none of
them counts), 400 a body that is none, 413 too large, 415 no JSON, 503 the journal takes nothing now, 504
no answer yet (they stand in the journal all the same).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody

from connectors.errors import ConfigError
from flows.alarm_api import ActionAnswer, Failure, answered, failed, not_json
from flows.master_actions import checked_changes
from flows.views import Views
from operators.master import KEYS

MAX_CHANGES: Final = 4_000_000  # bytes of a POST's body


class MasterBody(msgspec.Struct, forbid_unknown_fields=True):
    """Changes of master data, who makes them and why."""

    changes: list[dict[str, Any]]
    by: str
    why: str | None = None


@get("/api/master/{table:str}", sync_to_thread=True)
def master_table(views: NamedDependency[Views], table: FromPath[str]) -> list[dict[str, str]]:
    """Rows of a table as they are now: the plant's files and what changes made of them."""
    if table not in KEYS:
        raise NotFoundException(f"no table '{table[:40]}'; known: {', '.join(KEYS)}")
    return views.master(table)


@post(
    "/api/master",
    status_code=200,
    request_max_body_size=MAX_CHANGES,
    responses={
        200: ResponseSpec(data_container=ActionAnswer, description="accepted"),
        409: ResponseSpec(data_container=ActionAnswer, description="refused; none of the changes counts"),
        503: ResponseSpec(data_container=Failure, description="the journal takes nothing now"),
        504: ResponseSpec(data_container=Failure, description="no answer yet; they stand in the journal"),
    },
)
async def change_master(
    request: Request[Any, Any, Any], views: NamedDependency[Views], data: JSONBody[MasterBody]
) -> Response[Any]:
    """Upserts and deletes, all of them or none."""
    if (refused := not_json(request)) is not None:
        return refused
    try:
        action = checked_changes(data.changes, data.by, data.why)
    except ConfigError as error:
        return failed(400, str(error))
    return await answered(views, action)


MASTER_HANDLERS = [master_table, change_master]
