"""The one table of the decode language: equal to what the readers take, to the schema and to the page.

PENSTOCK_GOLDEN=write writes the page's section anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import jsonschema
import pytest

from flows.schema_command import schema_of
from operators.decode import (
    binary_fields,
    binary_parts,
    binary_spec,
    csv_spec,
    enclosed,
    json_rows_spec,
    json_spec,
    typed_spec,
    udf_spec,
)
from operators.decode.binary_decoder import layout_of
from operators.decode.language import LANGUAGE, definitions, reference
from operators.document import Problems, load_yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "decode.md"
BEGIN, END = "<!-- keys: begin (python -m operators.decode.language) -->\n", "<!-- keys: end -->"
LAYOUTS = sorted((ROOT / "tests" / "decode_binary" / "specs").glob("*.yaml"))
PRODUCTS = [*sorted(ROOT.glob("examples/products/*.yaml")), *sorted(ROOT.glob("examples/*/products/*.yaml"))]


def keys(name: str) -> set[str]:
    return set(LANGUAGE[name].keys)


def test_the_table_has_the_keys_that_the_readers_take() -> None:
    assert keys("DecodeField") == set(binary_fields.FIELD_KEYS)
    assert keys("DecodeFragment") == set(binary_spec.FRAGMENT_KEYS)
    assert keys("DecodeBinary") == {*binary_spec.TOP_KEYS, *binary_spec.FRAGMENT_KEYS}
    assert keys("DecodeTime") == {*binary_fields.FIELD_KEYS, *binary_parts.TIME_KEYS}
    assert keys("DecodeCheck") == {*binary_parts.CHECKS, "on_fail"}
    assert keys("DecodeJson") == {*json_spec._KEYS, *json_rows_spec.ROW_KEYS, "part", "check"}
    envelope = {
        "format",
        "timestamp",
        "hub_timestamp",
        "nodes",
        "binary",
        "encoding",
        "part",
        "rows",
        "device",
    }
    assert keys("DecodeJsonBinary") == {*envelope, *binary_spec.TOP_KEYS, *binary_spec.FRAGMENT_KEYS}
    assert keys("DecodeCsv") == {*csv_spec._KEYS, "part", "check"}
    assert keys("DecodeTyped") == set(typed_spec._KEYS)
    assert keys("DecodeTextSum") == set(enclosed.CHECK_KEYS)
    assert keys("DecodePart") == set(enclosed.PART_KEYS)
    assert keys("DecodeUdf") == set(udf_spec.KEYS)
    assert keys("DecodeColumn") == set(csv_spec._TIME_KEYS)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("DecodeWhen", "cases: [{when: {KEY: 1}, fields: {x: {}}}]"),
        ("DecodeBits", "bits: {KEY: 1}"),
        ("DecodeSections", "sections: {KEY: 1}"),
        ("DecodeTlv", "tlv: {KEY: 1}"),
        ("DecodeSelect", "select: {x: {KEY: 1}}"),
        ("DecodeSum", "check: {crc16: {KEY: 1}}"),
        ("DecodeCase", "cases: [{KEY: 1}]"),
        ("DecodeRecord", "records: {r: {KEY: 1}}"),
    ],
)
def test_readers_take_every_key_and_no_other(name: str, layout: str) -> None:
    """A key that no reader takes is told as unknown; one of the table never is."""
    for key in [*keys(name), "nonsense"]:
        if name == "DecodeCase" and key != "when":
            continue  # a case without `when` is read no further
        told = ""
        try:
            layout_of(layout.replace("KEY", key))
        except ValueError as error:
            told = str(error)
        assert ("unknown key" in told) == (key == "nonsense"), (key, told)


def test_the_page_has_the_keys() -> None:
    text = PAGE.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    assert begin
    wanted = "\n" + "\n".join(reference()) + "\n"
    if os.environ.get("PENSTOCK_GOLDEN") == "write":
        PAGE.write_text(head + begin + wanted + END + rest.partition(END)[2], encoding="utf-8")
        text = PAGE.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == wanted


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_the_schema_takes_layouts_of_real_devices(path: Path) -> None:
    schema = {"$defs": definitions(), "$ref": "#/$defs/DecodeSpec"}
    (node,) = load_yaml(path.read_text(), path.name, Problems())
    body = {"format": "binary", **node.plain()}
    found = jsonschema.Draft202012Validator(schema).iter_errors(body)
    assert [f"{error.json_path}: {error.message}" for error in found] == []


@pytest.mark.parametrize("path", PRODUCTS, ids=lambda path: path.stem)
def test_the_schema_takes_the_products_of_the_examples(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema_of("product"))
    for node in load_yaml(path.read_text(), path.name, Problems()):
        found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(node.plain())]
        assert found == []


@pytest.mark.parametrize(
    "section",
    [
        {"format": "xml"},
        {"fields": {}},
        {"udf": "products/p.py:decode", "format": "json"},
        {"format": "json", "metric_path": "x"},
        {"format": "csv", "colums": {}},
        {"format": "cbor", "metric_path": "x"},
        {"format": "json", "binary": "data", "metrics": "x"},
        {"format": "json", "binary": "data", "fields": {"x": {"at": 0, "sale": 1}}},
        {"format": "binary", "fields": {"x": {"at": 0, "sale": 1}}},
        {"format": "binary", "fields": {"x": {"as": "u17"}}},
        {"format": "binary", "cases": [{"when": {"prot": 1}}]},
        {"format": "binary", "tlv": {"items": {}}},
        {"format": "binary", "check": {"crc16": {"poly": 1}}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_check_refuses(section: dict[str, object]) -> None:
    schema = {"$defs": definitions(), "$ref": "#/$defs/DecodeSpec"}
    assert not jsonschema.Draft202012Validator(schema).is_valid(section)
