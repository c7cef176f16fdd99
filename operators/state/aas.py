"""Submodels of one device: the product's `aas:` mapping over its state, as the JSON of the
Asset Administration Shell (IDTA-01001-3-1: Submodel, SubmodelElementCollection, Property, and
"ValueOnly-Serialization in JSON")."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from operators.contract.spec import Metric
from operators.state.references import (
    FLAGS,
    AlarmRef,
    FormulaRef,
    MetricRef,
    Reference,
    WindowRef,
    parse_reference,
)
from operators.state.spec import AasMapping, Submodel
from operators.state.store import FORMULA, DeviceState, Value

_VALUE_TYPES: Final = {
    "number": "xs:double",
    "integer": "xs:long",
    "boolean": "xs:boolean",
    "string": "xs:string",
}


def fill_in(template: str, device_id: str) -> str:
    """An id of the mapping for one device."""
    return template.replace("{device_id}", device_id)


def submodel_ids(mapping: AasMapping, device_id: str) -> list[str]:
    """Ids of a device's submodels, in the mapping's order."""
    return [fill_in(submodel.id, device_id) for submodel in mapping.submodels]


def submodel_json(
    submodel: Submodel,
    metrics: Mapping[str, Metric],
    device_id: str,
    state: DeviceState | None,
    formulas: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """One submodel as JSON. state None: a device never heard; its properties have no value and
    its alarms are not active. formulas: formulaId -> number | bool."""
    found: dict[str, Any] = {
        "modelType": "Submodel",
        "id": fill_in(submodel.id, device_id),
        "idShort": submodel.idShort,
        "kind": "Instance",
    }
    if submodel.semanticId:
        key = {"type": "GlobalReference", "value": submodel.semanticId}
        found["semanticId"] = {"type": "ExternalReference", "keys": [key]}
    elements: list[dict[str, Any]] = []
    for element in submodel.elements:
        reference = parse_reference(element.value)
        if isinstance(reference, str):
            raise ValueError(f"{element.path}: {reference}")
        *above, last = element.path.split(".")
        _collection(elements, above).append(_property(last, reference, metrics, formulas, state))
    found["submodelElements"] = elements
    return found


def value_only(elements: list[dict[str, Any]]) -> dict[str, Any]:
    """ValueOnly form: a collection is an object, numbers and booleans are JSON's, a property
    without a value is null."""
    return {
        item["idShort"]: value_only(item["value"])
        if item["modelType"] == "SubmodelElementCollection"
        else json_value(item.get("value"), item["valueType"])
        for item in elements
    }


def json_value(text: str | None, value_type: str) -> Value:
    """The JSON value of a property's lexical value."""
    if text is None:
        return None
    if value_type == "xs:boolean":
        return text == "true"
    if value_type == "xs:long":
        return int(text)
    return float(text) if value_type == "xs:double" else text


def resolve(reference: Reference, state: DeviceState | None) -> Value:
    """The value that a reference has now; None where there is none."""
    match reference:
        case AlarmRef(ruleId, flag):
            if state is None or ruleId not in state.flags:
                return flag == "acknowledged"
            return bool(state.flags[ruleId] >> FLAGS.index(flag) & 1)
        case FormulaRef(formulaId):
            found = (
                next(iter(state.windows.get(FORMULA, {}).get(formulaId, {}).values()), None)
                if state
                else None
            )
            return found.value if found else None
        case MetricRef(name):
            metric = state.metrics.get(name) if state else None
            return metric.value if metric else None
        case WindowRef(window, aggregate, metric_name):
            below = state.windows.get(window, {}).get(metric_name, {}) if state else {}
            return below[aggregate].value if aggregate in below else None


def _property(
    id_short: str,
    reference: Reference,
    metrics: Mapping[str, Metric],
    formulas: Mapping[str, str],
    state: DeviceState | None,
) -> dict[str, Any]:
    match reference:
        case FormulaRef(formulaId):
            value_type = "xs:boolean" if formulas.get(formulaId) == "bool" else "xs:double"
        case AlarmRef():
            value_type = "xs:boolean"
        case MetricRef(name):
            value_type = _VALUE_TYPES[metrics[name].type]
        case WindowRef(_, aggregate, _):
            value_type = "xs:long" if aggregate == "count" else "xs:double"
    found = {"modelType": "Property", "idShort": id_short, "valueType": value_type}
    value = resolve(reference, state)
    if value is not None:
        found["value"] = _lexical(value != 0 if value_type == "xs:boolean" else value, value_type)
    return found


def _lexical(value: float | int | bool | str, value_type: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if value_type == "xs:long" else str(value)


def _collection(elements: list[dict[str, Any]], path: list[str]) -> list[dict[str, Any]]:
    """The list of elements at a path of collections, made where it is not there yet."""
    for part in path:
        below = next((item for item in elements if item["idShort"] == part), None)
        if below is None:
            below = {"modelType": "SubmodelElementCollection", "idShort": part, "value": []}
            elements.append(below)
        elements = below["value"]
    return elements
