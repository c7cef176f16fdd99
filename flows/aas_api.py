"""Submodel values over the IDTA HTTP API v3.1 (IDTA-01002-3-1), read only in this version.

    GET /api/v3.1/submodels                                        paged; `limit`, `cursor`, `idShort`
    GET /api/v3.1/submodels/{base64url id}                         and /$value
    GET /api/v3.1/submodels/{base64url id}/submodel-elements       paged; and /$value
    GET /api/v3.1/submodels/{id}/submodel-elements/{idShortPath}   and /$value

Ids are base64url without padding; an idShortPath is `a.b[0].c`; a page is
`{"paging_metadata": {"cursor"?}, "result": [...]}`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath, FromQuery, QueryParameter

from flows.views import Views
from operators.state.aas import json_value, value_only

BASE = "/api/v3.1"
Limit = Annotated[int, QueryParameter(ge=1, le=10_000)]


def decode_id(text: str) -> str:
    """The identifier behind a base64url path segment; 400 where it is none."""
    try:
        padded = text + "=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise ClientException(f"'{text}' is not a base64url-encoded identifier") from error


def submodel_of(views: Views, encoded: str) -> dict[str, Any]:
    """The submodel of an encoded id; 404 where there is none."""
    identifier = decode_id(encoded)
    found = views.submodel(identifier)
    if found is None:
        raise NotFoundException(f"no submodel '{identifier}'")
    return found


@get(f"{BASE}/submodels", sync_to_thread=True)
def submodels(
    views: NamedDependency[Views],
    limit: Limit = 100,
    cursor: FromQuery[str | None] = None,
    id_short: Annotated[str | None, QueryParameter(name="idShort")] = None,
) -> dict[str, Any]:
    """One page of submodels, in the order of products, devices and the mapping."""
    start = start_of(cursor)
    return page_of(views.submodels(start, limit + 1, id_short), start, limit)


def start_of(cursor: str | None) -> int:
    """The ordinal behind a cursor; 400 where it is none of ours."""
    try:
        start = int(decode_id(cursor)) if cursor else 0
    except ValueError:
        start = -1
    if start < 0:
        raise ClientException("the cursor is not one that this server gave")
    return start


def page_of(found: list[dict[str, Any]], start: int, limit: int) -> dict[str, Any]:
    """The envelope of a page; `found` begins at `start` and holds one more where there is more."""
    paging: dict[str, str] = {}
    if len(found) > limit:
        paging["cursor"] = base64.urlsafe_b64encode(str(start + limit).encode()).decode().rstrip("=")
    return {"paging_metadata": paging, "result": found[:limit]}


@get(f"{BASE}/submodels/{{submodel_id:str}}", sync_to_thread=True)
def submodel(views: NamedDependency[Views], submodel_id: FromPath[str]) -> dict[str, Any]:
    """One submodel with its elements."""
    return submodel_of(views, submodel_id)


@get(f"{BASE}/submodels/{{submodel_id:str}}/$value", sync_to_thread=True)
def submodel_value(views: NamedDependency[Views], submodel_id: FromPath[str]) -> dict[str, Any]:
    """The ValueOnly form of a submodel."""
    return value_only(submodel_of(views, submodel_id)["submodelElements"])


@get(f"{BASE}/submodels/{{submodel_id:str}}/submodel-elements", sync_to_thread=True)
def elements(
    views: NamedDependency[Views],
    submodel_id: FromPath[str],
    limit: Limit = 100,
    cursor: FromQuery[str | None] = None,
) -> dict[str, Any]:
    """One page of the elements of a submodel."""
    start = start_of(cursor)
    found = submodel_of(views, submodel_id)["submodelElements"][start : start + limit + 1]
    return page_of(found, start, limit)


@get(f"{BASE}/submodels/{{submodel_id:str}}/submodel-elements/$value", sync_to_thread=True)
def elements_value(views: NamedDependency[Views], submodel_id: FromPath[str]) -> dict[str, Any]:
    """The ValueOnly form of all elements."""
    return value_only(submodel_of(views, submodel_id)["submodelElements"])


@get(f"{BASE}/submodels/{{submodel_id:str}}/submodel-elements/{{path:str}}", sync_to_thread=True)
def element(views: NamedDependency[Views], submodel_id: FromPath[str], path: FromPath[str]) -> dict[str, Any]:
    """One element by its idShortPath."""
    return find_element(submodel_of(views, submodel_id), path)


@get(f"{BASE}/submodels/{{submodel_id:str}}/submodel-elements/{{path:str}}/$value", sync_to_thread=True)
def element_value(
    views: NamedDependency[Views], submodel_id: FromPath[str], path: FromPath[str]
) -> Response[bytes]:
    """The ValueOnly form of one element: a bare JSON value where it is a property."""
    found = find_element(submodel_of(views, submodel_id), path)
    if found["modelType"] == "SubmodelElementCollection":
        value: Any = value_only(found["value"])
    else:
        value = json_value(found.get("value"), found["valueType"])
    return Response(msgspec.json.encode(value), media_type="application/json")


def find_element(submodel: dict[str, Any], path: str) -> dict[str, Any]:
    """The element at an idShortPath; 404 where there is none."""
    below: list[dict[str, Any]] = submodel["submodelElements"]
    found: dict[str, Any] | None = None
    for part in path.split("."):
        found = next((e for e in below if e["idShort"] == part), None)
        if found is None:
            raise NotFoundException(f"no element '{path}' in submodel '{submodel['id']}'")
        below = found["value"] if found["modelType"] == "SubmodelElementCollection" else []
    assert found is not None
    return found


AAS_HANDLERS = [submodels, submodel, submodel_value, elements, elements_value, element, element_value]
