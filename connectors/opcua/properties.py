"""What a server says about its variables beside their values: types, units, ranges, names of states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError

from connectors.opcua.limits import Limits, parts

MOST_TEXTS: Final = 10_000  # names of one enumeration
DEEPEST: Final = 32  # data types above a data type
_STATES: Final = {"FalseState": 0, "TrueState": 1}
_READ: Final = ("EURange", "InstrumentRange", "EngineeringUnits", "EnumStrings", "EnumValues", *_STATES)


@dataclass(slots=True)
class Properties:
    """Of one variable. kind: number | integer | boolean | string, "" where its values are of no such type or
    nobody says; texts: number -> name of an enumeration or of a state; unit_id: UNECE's code of the unit as
    a number (OPC 10000-8, 5.6.3); low, high: of EURange, else of InstrumentRange; NaN: not said."""

    kind: str = ""
    array: bool = False
    unit_id: int = 0
    unit: str = ""
    low: float = math.nan
    high: float = math.nan
    texts: dict[int, str] = field(default_factory=dict)


async def read_properties(client: Client, nodes: Sequence[Any]) -> list[Properties]:
    """The properties of variables, in order; what a server does not tell is as it is by default. Raises
    `UaError` and `OSError` when it does not answer at all."""
    limits = await Limits.read(client)
    found = [Properties() for _ in nodes]
    types: dict[Any, list[int]] = {}
    for at, (of, rank) in enumerate(
        zip(
            await _attributes(client, limits, nodes, AttributeIds.DataType),
            await _attributes(client, limits, nodes, AttributeIds.ValueRank),
            strict=True,
        )
    ):
        found[at].array = isinstance(rank, int) and rank >= 0
        if isinstance(of, ua.NodeId):
            types.setdefault(of, []).append(at)
    for one, told in zip(found, await _children(client, limits, nodes), strict=True):
        _take(one, told)
    for of, (kind, texts) in (await _data_types(client, limits, list(types))).items():
        for at in types[of]:
            found[at].kind = kind
            found[at].texts = found[at].texts or texts
    return found


def _take(one: Properties, told: dict[str, Any]) -> None:
    for name in ("InstrumentRange", "EURange"):  # the last that is there
        value = told.get(name)
        if isinstance(value, ua.Range) and value.Low < value.High:
            one.low, one.high = float(value.Low), float(value.High)
    unit = told.get("EngineeringUnits")
    if isinstance(unit, ua.EUInformation):
        one.unit_id = int(unit.UnitId)
        one.unit = (unit.DisplayName.Text or "").strip()
    one.texts = _texts(told)
    states = {number: told[name] for name, number in _STATES.items() if name in told}
    for number, state in states.items():
        if text := getattr(state, "Text", None):
            one.texts[number] = text


def _texts(told: dict[str, Any]) -> dict[int, str]:
    """The names of EnumValues or EnumStrings."""
    values = told.get("EnumValues")
    if isinstance(values, list):
        return {
            int(one.Value): one.DisplayName.Text
            for one in values[:MOST_TEXTS]
            if isinstance(one, ua.EnumValueType) and one.DisplayName.Text
        }
    names = told.get("EnumStrings")
    if isinstance(names, list):
        return {at: text for at, one in enumerate(names[:MOST_TEXTS]) if (text := getattr(one, "Text", None))}
    return {}


async def _data_types(
    client: Client, limits: Limits, types: Sequence[Any]
) -> dict[Any, tuple[str, dict[int, str]]]:
    """The kind of each data type, and the names of an enumeration's numbers."""
    found: dict[Any, tuple[str, dict[int, str]]] = {}
    told = await _children(client, limits, types)
    defined = await _attributes(client, limits, types, AttributeIds.DataTypeDefinition)
    for of, properties, definition in zip(types, told, defined, strict=True):
        texts = _texts(properties)
        if not texts and isinstance(definition, ua.EnumDefinition):
            texts = {
                int(one.Value): str(one.DisplayName.Text or one.Name)
                for one in (definition.Fields or [])[:MOST_TEXTS]
            }
        found[of] = (_kind(await _built_in(client, of)), texts)
    return found


async def _built_in(client: Client, of: Any) -> int:
    """The number of the built-in or abstract type of namespace 0 that a data type comes from; 0: unknown."""
    for _ in range(DEEPEST):
        if of.NamespaceIndex == 0 and _kind(of.Identifier):
            return int(of.Identifier)
        try:
            above = await client.get_node(of).get_references(
                ua.NodeId(ua.Int32(ObjectIds.HasSubtype)), ua.BrowseDirection.Inverse
            )
        except UaError:
            return 0
        if not above:
            return 0
        of = above[0].NodeId
    return 0


def _kind(built_in: Any) -> str:
    """Of a type in namespace 0: Number, Integer and UInteger are 26 to 28, Enumeration is 29."""
    if built_in == 1:
        return "boolean"
    if built_in in (*range(2, 10), 13, 19, 27, 28, 29):
        return "integer"
    if built_in in (10, 11, 26):
        return "number"
    return "string" if built_in in (12, 16, 20, 21) else ""


async def _attributes(client: Client, limits: Limits, nodes: Sequence[Any], which: AttributeIds) -> list[Any]:
    """One attribute of each; None where there is none."""
    found: list[Any] = []
    for some in parts(nodes, limits.nodes_read):
        answers = await client.uaclient.session.read_attributes(list(some), which)
        found += [
            one.Value.Value if one.Value is not None and (one.StatusCode is None or one.StatusCode.is_good())
            else None
            for one in answers
        ]  # fmt: skip
    return found


async def _children(client: Client, limits: Limits, nodes: Sequence[Any]) -> list[dict[str, Any]]:
    """The values of those properties of each node that matter here, by name."""
    places: list[tuple[int, str, Any]] = []
    for first in range(0, len(nodes), limits.nodes_browsed):
        some = [_properties_of(node) for node in nodes[first : first + limits.nodes_browsed]]
        parameters = ua.BrowseParameters()
        parameters.View.Timestamp = ua.get_win_epoch()
        parameters.NodesToBrowse = some
        answers = await client.uaclient.session.browse(parameters)
        for at, answer in enumerate(answers, first):
            told = [one for one in answer.References or () if one.BrowseName.Name in _READ]
            places += [(at, str(one.BrowseName.Name), one.NodeId) for one in told]
    values = await _attributes(client, limits, [node for _, _, node in places], AttributeIds.Value)
    found: list[dict[str, Any]] = [{} for _ in nodes]
    for (at, name, _), value in zip(places, values, strict=True):
        if value is not None:
            found[at][name] = value
    return found


def _properties_of(node: Any) -> Any:
    asked = ua.BrowseDescription()
    asked.NodeId = node
    asked.BrowseDirection = ua.BrowseDirection.Forward
    asked.ReferenceTypeId = ua.NodeId(ua.Int32(ObjectIds.HasProperty))
    asked.IncludeSubtypes = True
    asked.NodeClassMask = ua.NodeClass.Variable
    asked.ResultMask = ua.BrowseResultMask.BrowseName
    return asked
