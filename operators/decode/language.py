"""The keys of the decode language, each with its JSON Schema and its sentence: out of this one table come
the schema that editors use and the reference in docs/decode.md. A test holds it against the readers.

`python -m operators.decode.language` prints the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from operators.decode.binary_fields import ALL_TYPES
from operators.decode.binary_parts import CHECKS, UNITS
from operators.decode.csv_spec import AMBIGUOUS, TIME_UNITS
from operators.decode.enclosed import WRITTEN
from operators.decode.json_spec import UNITS as JSON_UNITS
from operators.decode.spec import FORMATS, PACKED


class Key(NamedTuple):
    """One key: what may stand there, and what it does."""

    schema: Mapping[str, Any]
    told: str


class Mapped(NamedTuple):
    """A mapping of the language. others: what keys that are not listed hold ("" = there are none)."""

    title: str
    keys: Mapping[str, Key]
    required: tuple[str, ...] = ()
    others: str = ""


def _one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _any(*schemas: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema) for schema in schemas]}


def _list(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(schema)}


def _map(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": dict(schema)}


def _several(name: str) -> dict[str, Any]:
    return _any(_ref(name), _list(_ref(name)))


INTEGER: Final = {"type": "integer"}
TEXT: Final = {"type": "string"}
FLAG: Final = {"type": "boolean"}
SCALAR: Final = {"type": ["string", "number", "boolean", "null"]}
EXPRESSION: Final = {"type": ["string", "number", "boolean"]}
RATIO: Final = {"type": ["number", "string"]}
TEST: Final = _any(
    {"type": ["number", "string", "boolean"]}, _list({"type": ["number", "string", "boolean"]})
)
ENDS: Final = {
    "type": "array",
    "items": {"type": ["number", "string", "null"]},
    "minItems": 2,
    "maxItems": 2,
}
NUMBER_OR_TEXT: Final = {"type": ["integer", "string"]}
COLUMNS: Final = _list(NUMBER_OR_TEXT)
LENGTH: Final = _any(NUMBER_OR_TEXT, _ref("DecodeField"))
ORDER: Final = Key(_one_of("be", "le"), "byte order of what stands below: high byte first, or low byte first")
TYPE: Final = _one_of(*ALL_TYPES)
_KEY_TYPE: Final = _any(TYPE, _list(TYPE))

_VALUE: Final[Mapping[str, Key]] = {
    "signed": Key(FLAG, "two's complement of the bits taken"),
    "missing": Key(TEST, "raw values that mean no value: null"),
    "valid": Key(ENDS, "raw values outside of these ends: null"),
    "map": Key(_map(SCALAR), "raw value (or range, or `else`) to value; no match: null; no scale beside it"),
    "scale": Key(RATIO, 'value = raw x scale + offset, rounded once; `"165/65536"` is a fraction'),
    "offset": Key(RATIO, "added after the scale"),
    "clamp": Key(ENDS, "ends to which the value is moved"),
    "round": Key(INTEGER, "decimals, half away from zero"),
    "optional": Key(FLAG, "beyond the end of the frame: absent, no reject"),
    "if": Key(EXPRESSION, "read only where this holds; else absent"),
}
_FIELD: Final[Mapping[str, Key]] = {
    "at": Key(
        NUMBER_OR_TEXT,
        "byte, from the base; negative from the end; `same`; an expression; none: behind the field before",
    ),
    "as": Key(TYPE, "type, with `le` or `be`; `ws` = 16-bit words swapped; default `u8`"),
    "bit": Key(INTEGER, "one bit, 0 = lowest: a boolean (a number with `as: int`)"),
    "bits": Key(NUMBER_OR_TEXT, '`"7..4"` of the container: a number'),
    "pieces": Key(
        _list({"type": "array", "minItems": 2, "maxItems": 2}),
        '`[[byte, "hi..lo"], ..]`, highest first: a number split over bytes',
    ),
    "key": Key(INTEGER, "the n-th part of the tlv key instead of bytes"),
    "value": Key(SCALAR, "a constant instead of bytes"),
    "text": Key(_one_of("hex", "ascii", "dec", "bcd"), "bytes as a text"),
    "size": Key(NUMBER_OR_TEXT, "bytes of a text, bcd, ascii or asciihex: a number, `rest` or an expression"),
    "order": ORDER,
    **_VALUE,
}
_TIME: Final[Mapping[str, Key]] = {
    "epoch": Key(NUMBER_OR_TEXT, "year or day that is counted from; default 1970"),
    "unit": Key(_one_of(*UNITS), "unit of the count; default `s`"),
    "wrap": Key(TYPE, "only the low bits of the count are sent: the latest such time before arrival"),
    "ago": Key(_ref("DecodeField"), "arrival minus the value of this field"),
    "relative": Key(_any(_one_of("arrival"), _ref("DecodeTime")), "the time that `step` counts from"),
    "step": Key(_any(RATIO, _ref("DecodeField")), "seconds from record to record"),
    "first": Key(INTEGER, "number of the first record; default 0"),
}
_FRAGMENT: Final[Mapping[str, Key]] = {
    "order": ORDER,
    "size": Key(LENGTH, "bytes of this fragment; default: up to the furthest byte that it reads"),
    "skip": Key(INTEGER, "bytes passed over, nothing read"),
    "check": Key(_several("DecodeCheck"), "checksums; one that does not fit rejects the frame"),
    "time": Key(_ref("DecodeTime"), "event time of the reading; none: time of arrival"),
    "fields": Key(_map(_ref("DecodeField")), "metrics, and `_names` for expressions only"),
    "bits": Key(_several("DecodeBits"), "a stream of bit fields"),
    "sections": Key(_several("DecodeSections"), "parts that are there or not, one behind the other"),
    "tlv": Key(_several("DecodeTlv"), "items of key and value"),
    "cases": Key(_list(_ref("DecodeCase")), "the first that fits is run"),
    "record": Key(_any(TEXT, _list(TEXT)), "records that are run here: further readings"),
    "select": Key(_map(_ref("DecodeSelect")), "a field's code chooses another's scale, offset or name"),
    "derive": Key(_map(EXPRESSION), "formulas over final values, in the order of the file"),
    "use": Key(_any(TEXT, _list(TEXT)), "fragments of `fragments` that are put in"),
    "prefix": Key(TEXT, "stands before the names of this fragment's metrics"),
}
_WHEN: Final[Mapping[str, Key]] = {
    "port": Key(TEST, "sub-address of the frame: LoRaWAN port, Modbus unit"),
    "length": Key(_any(TEST, {"type": "object"}), "bytes of the whole frame; or `{multiple: 3, plus: 1}`"),
    "byte": Key(_map(TEST), "`{at: test}`: what stands at a byte"),
    "mask": Key(_map(_list(INTEGER)), "`{at: [mask, value]}`: some bits of a byte"),
    "if": Key(EXPRESSION, "an expression over fields read so far, `frame.port`, `frame.length`"),
}
_CHECK: Final[Mapping[str, Key]] = {
    "poly": Key(INTEGER, "polynomial of a crc in normal form, 0x8005"),
    "init": Key(INTEGER, "start value; default 0"),
    "xor": Key(INTEGER, "applied at the end; default 0"),
    "reflect": Key(FLAG, "crc: bits of bytes and of the result reversed"),
    "over": Key(TEXT, '`"0..-3"`, bytes it covers; default: all before `at`'),
    "at": Key(INTEGER, "where it stands, -2 = the last two bytes"),
    "order": ORDER,
    "on_fail": Key(_one_of("reject", "flag"), "`flag`: quality uncertain instead of a reject"),
}

_AROUND: Final[Mapping[str, Key]] = {
    "part": Key(_ref("DecodePart"), "the part of the frame that is read"),
    "check": Key(_ref("DecodeTextCheck"), "a checksum; what it covers is read, where `part` does not say"),
}

LANGUAGE: Final[dict[str, Mapped]] = {
    "DecodeBinary": Mapped(
        "`format: binary`, top level (and the keys of a fragment)",
        {
            "format": Key(_one_of("binary"), "this language"),
            "encoding": Key(
                _one_of("raw", "hex", "base64", "base64url"),
                "how the frame's bytes are written; default `raw`",
            ),
            "pad": Key(INTEGER, "shorter frames are filled with zeros up to here"),
            "records": Key(_map(_ref("DecodeRecord")), "records by name, for `record`"),
            "fragments": Key(_map(_ref("DecodeOpen")), "fragments by name, for `use`"),
            "tables": Key(_map(_map(_ref("DecodeOpen"))), "tlv items by name of a table"),
            **_FRAGMENT,
        },
        ("format",),
    ),
    "DecodeFragment": Mapped("Fragment", _FRAGMENT),
    "DecodeOpen": Mapped("Fragment in `items`, a section, `fragments`", _FRAGMENT, (), "DecodeField"),
    "DecodeField": Mapped("Field", _FIELD),
    "DecodeTime": Mapped("Time (and the keys of a field)", {**_FIELD, **_TIME}),
    "DecodeBits": Mapped(
        "Bits",
        {
            "from": Key(INTEGER, "byte where the stream begins; default: behind what ran before"),
            "order": Key(_one_of("msb", "lsb"), "from each byte's top bit (default), or from bit 0 up"),
            "list": Key(_list({"type": "object"}), "`{name: width, ..}`, `{skip: width}`, `{count, list}`"),
        },
        ("list",),
    ),
    "DecodeCase": Mapped(
        "Case (and the keys of a fragment)",
        {
            "when": Key(_ref("DecodeWhen"), "all of these must hold"),
            "else": Key(
                _any(_one_of("reject", "ignore"), _ref("DecodeFragment"), {"type": "null"}),
                "the last case: `reject`, `ignore` or a fragment",
            ),
            "ignore": Key(FLAG, "frames of this case give no reading"),
            **_FRAGMENT,
        },
    ),
    "DecodeWhen": Mapped("When", _WHEN),
    "DecodeSections": Mapped(
        "Sections",
        {
            "mask": Key(_ref("DecodeField"), "whose bits say which sections are there"),
            "from": Key(INTEGER, "where the first begins"),
            "to": Key(INTEGER, "where the region ends"),
            "list": Key(_list(_ref("DecodeSection")), "in the order in which they stand in the frame"),
            "order": ORDER,
        },
        ("list",),
    ),
    "DecodeSection": Mapped(
        "Section (and the keys of a fragment; others are fields)",
        {
            "bit": Key(INTEGER, "there if this bit of the mask is set"),
            "when": Key(_ref("DecodeWhen"), "there if this holds; its base is here"),
            "count": Key(LENGTH, "how often it stands there"),
            **_FRAGMENT,
        },
        (),
        "DecodeField",
    ),
    "DecodeTlv": Mapped(
        "Tlv",
        {
            "from": Key(INTEGER, "where the first item begins"),
            "to": Key(INTEGER, "where the items end, -2 before a CRC"),
            "key": Key(_KEY_TYPE, "types of the parts of a key, `[u8, u8]`"),
            "length": Key(TYPE, "type of the length behind the key, if there is one"),
            "unknown": Key(_one_of("stop", "reject", "skip", "resync"), "an item that is not listed"),
            "repeated": Key(_one_of("last", "first", "reject", "list"), "a name that comes again"),
            "short": Key(_one_of("reject", "stop"), "an item cut off by the end"),
            "items": Key(
                _any(TEXT, _map(_ref("DecodeOpen")), _list(_any(TEXT, _map(_ref("DecodeOpen"))))),
                'by key in hex, in quotes: `"03 67"`; `*`, `10..1F`, `0?` and `FE|FF` stand for several',
            ),
            "order": ORDER,
        },
        ("key", "items"),
    ),
    "DecodeRecord": Mapped(
        "Record (and the keys of a fragment)",
        {
            "at": Key(INTEGER, "where the first begins; default: behind what ran before"),
            "count": Key(LENGTH, "how many; `rest`: as many as fit; default 1"),
            "to": Key(INTEGER, "where the region ends"),
            **_FRAGMENT,
        },
    ),
    "DecodeSelect": Mapped(
        "Select",
        {
            "by": Key(TEXT, "the field whose raw value chooses"),
            "scale": Key(_map({"type": ["number", "string", "null"]}), "code to factor"),
            "offset": Key(_map({"type": ["number", "string", "null"]}), "code to offset"),
            "name": Key(_map({"type": ["string", "null"]}), "code to name; null: dropped"),
        },
        ("by",),
    ),
    "DecodeCheck": Mapped(
        "Check",
        {
            **{name: Key(_ref("DecodeSum"), f"a {name} of the bytes") for name in CHECKS},
            "on_fail": _CHECK["on_fail"],
        },
    ),
    "DecodeSum": Mapped("What a check says", _CHECK, ("at",)),
    "DecodeJson": Mapped(
        "`format: json`, `msgpack` or `cbor`",
        {
            "format": Key(
                _one_of("json", *PACKED), "JSON text, MessagePack or CBOR; paths mean the same in all"
            ),
            "timestamp": Key(_ref("DecodePath"), "path of the device's time; default `device_timestamp`"),
            "hub_timestamp": Key(_ref("DecodePath"), "path of the hub's time; default `hub_timestamp`"),
            "metrics": Key(
                _any(TEXT, _map(TEXT)), "an object whose members are metrics, or `{metric: path}`"
            ),
            "nodes": Key(TEXT, "path of the list of a hub's devices"),
            "binary": Key(
                TEXT,
                "path of a text whose bytes are a binary layout, which stands beside; `.`: the row itself",
            ),
            "encoding": Key(_one_of("hex", "base64"), "of `binary`; default: told by its look"),
            "derive": _FRAGMENT["derive"],
            "rows": Key(TEXT, 'an array with a reading in each element, `"values[*]"`'),
            "device": Key(
                _ref("DecodeNaming"), "path in the row of the device's name; `$.` before it: in the frame"
            ),
            "metric": Key(_ref("DecodeNaming"), "tall rows: path of the metric's name"),
            "value": Key(_ref("DecodeRowValue"), "tall rows: path of its value"),
            "carry": Key(
                _any(TEXT, _list(TEXT)),
                "paths in the row whose value holds for the rows behind it too, until another stands there",
            ),
            "quality": Key(TEXT, "path of the quality"),
            **_AROUND,
        },
        ("format",),
    ),
    "DecodePart": Mapped(
        'Part of a text frame (or its bytes, `"4..-3"`)',
        {
            "from": Key(TEXT, "the text that it stands behind, the first in the frame"),
            "to": Key(TEXT, "the text that it stands before, the last in the frame"),
        },
    ),
    "DecodeTextCheck": Mapped(
        "Check of a text frame",
        {
            **{name: Key(_ref("DecodeTextSum"), f"a {name} of the bytes") for name in CHECKS},
            "on_fail": _CHECK["on_fail"],
        },
    ),
    "DecodeTextSum": Mapped(
        "What a check of a text frame says",
        {
            "from": Key(TEXT, "what it covers begins behind the first of this text"),
            "to": Key(TEXT, "what it covers ends before the last of this text, and the check follows"),
            "over": Key(TEXT, '`"0..-3"`, bytes it covers instead'),
            "at": Key(INTEGER, "where it stands, if not behind `to`"),
            "as": Key(_one_of(*WRITTEN), "digits or bytes; default `hex`, with `at` `raw`"),
            **{key: _CHECK[key] for key in ("order", "init", "xor", "poly", "reflect", "on_fail")},
        },
    ),
    "DecodeNaming": Mapped(
        "A name in a row (or its path alone)",
        {
            "first": Key(_any(TEXT, _list(TEXT)), "paths, of which the first that stands is the name"),
            "join": Key(_any(TEXT, _list(TEXT)), "paths, whose texts one behind the other are the name"),
            "map": Key(_map(TEXT), "of `metric`: what stands for such a name; others stay"),
        },
    ),
    "DecodeRowValue": Mapped(
        "A value in a row (or its path alone)",
        {
            "first": Key(_any(TEXT, _list(TEXT)), "paths, of which the first that stands is the value"),
            "plus": Key(TEXT, "path of a number that is added to a number"),
        },
        ("first",),
    ),
    "DecodePath": Mapped(
        "A time in JSON (or its path alone)",
        {
            "path": Key(TEXT, "where it stands"),
            "unit": Key(_one_of(*JSON_UNITS), "of a number; default `ms`; `auto`: by its size"),
            "plus": Key(TEXT, "`timestamp` of rows: path of a time that is added, in the same unit"),
            "relative_below": Key({"type": "number"}, "`timestamp` of rows: smaller ones count from arrival"),
        },
        ("path",),
    ),
    "DecodeTyped": Mapped(
        "`format: typed`",
        {
            "format": Key(_one_of("typed"), "values that bring names, types, times and qualities"),
            "metrics": Key(_map(TEXT), "`{metric: name at the source}`; none: every metric by its own name"),
            "derive": _FRAGMENT["derive"],
        },
        ("format",),
    ),
    "DecodeCsv": Mapped(
        "`format: csv`",
        {
            "format": Key(_one_of("csv"), "rows of separated cells"),
            "separator": Key(TEXT, 'default `","`'),
            "decimal": Key(TEXT, 'decimal mark, default `"."`'),
            "thousands": Key(TEXT, "what may stand between groups of three digits; default nothing"),
            "timestamp": Key(_ref("DecodeColumn"), "the column of the device's time"),
            "hub_timestamp": Key(_ref("DecodeColumn"), "the column of the hub's time"),
            "device": Key(NUMBER_OR_TEXT, "the column that names the device of the row"),
            "metric": Key(NUMBER_OR_TEXT, "of a tall file: the column that names the metric of the row"),
            "value": Key(NUMBER_OR_TEXT, "its value"),
            "quality": Key(NUMBER_OR_TEXT, "its quality: a word, or an OPC UA status code"),
            "columns": Key(_map(NUMBER_OR_TEXT), "`{metric: column}`; none: columns named like metrics"),
            "missing": Key(_list(SCALAR), "cells that mean no value"),
            "derive": _FRAGMENT["derive"],
            **_AROUND,
        },
        ("format",),
    ),
    "DecodeColumn": Mapped(
        "A time in CSV (or its column alone)",
        {
            "column": Key(
                _any(NUMBER_OR_TEXT, COLUMNS),
                "its name in the header line, or its place from 1; several: a date and a time, with a blank",
            ),
            "format": Key(TEXT, "`%Y-%m-%d %H:%M:%S`; default ISO 8601, or a number"),
            "unit": Key(_one_of(*TIME_UNITS), "of a number; default `ms`; `excel`: days since 1899-12-30"),
            "zone": Key(TEXT, "time zone of times that name none; default UTC"),
            "ambiguous": Key(
                _one_of(*AMBIGUOUS),
                "which is meant of an hour that daylight saving repeats; default `earlier`; `reject` refuses "
                "such times, and those that it leaves out",
            ),
        },
        ("column",),
    ),
    "DecodeUdf": Mapped(
        "`udf`",
        {
            "udf": Key(TEXT, "a function in a Python file of the plant, `products/torano.py:decode`"),
            "memory": Key(TEXT, "what its process may take; default 512MB"),
        },
        ("udf",),
    ),
}
_ENVELOPE: Final = (
    "format",
    "timestamp",
    "hub_timestamp",
    "nodes",
    "binary",
    "encoding",
    "part",
    "rows",
    "device",
)
LANGUAGE["DecodeJsonBinary"] = Mapped(
    "The same with `binary` (and the keys of a fragment, `pad`, `records`, `fragments`, `tables`)",
    {
        **LANGUAGE["DecodeBinary"].keys,
        **{name: LANGUAGE["DecodeJson"].keys[name] for name in _ENVELOPE},
        "device": Key(TEXT, LANGUAGE["DecodeJson"].keys["device"].told),
    },
    ("format", "binary"),
)
SHORT_FORMS: Final = {
    **dict.fromkeys(("DecodePart", "DecodePath", "DecodeNaming", "DecodeRowValue"), TEXT),
    "DecodeColumn": _any(NUMBER_OR_TEXT, COLUMNS),
}
EMPTY_FORMS: Final = ("DecodePath", "DecodeColumn", "DecodeField", "DecodeOpen", "DecodeFragment")


def definitions() -> dict[str, Any]:
    """The `$defs` of a JSON Schema; `DecodeSpec` is the whole section."""
    found: dict[str, Any] = {
        "DecodeSpec": {
            "description": "How bytes become readings; `penstock check` tells every mistake in it.",
            "type": "object",
            "if": {"required": ["udf"]},
            "then": _ref("DecodeUdf"),
            "else": {"required": ["format"], "properties": {"format": _one_of(*FORMATS)}},
            "allOf": [
                {
                    "if": {"properties": {"format": {"const": kind}}, "required": ["format"]},
                    "then": _ref(name),
                }
                for kind, name in (
                    *((name, "DecodeJsonOrBinary") for name in ("json", *PACKED)),
                    ("csv", "DecodeCsv"),
                    ("typed", "DecodeTyped"),
                    ("binary", "DecodeBinary"),
                )
            ],
        },
        "DecodeJsonOrBinary": {
            "if": {"required": ["binary"]},
            "then": _ref("DecodeJsonBinary"),
            "else": _ref("DecodeJson"),
        },
    }
    for name, one in LANGUAGE.items():
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {key: {**told.schema, "description": told.told} for key, told in one.keys.items()},
            "additionalProperties": _ref(one.others) if one.others else False,
        }
        if one.required:
            schema["required"] = list(one.required)
        forms = [schema, SHORT_FORMS[name]] if name in SHORT_FORMS else [schema]
        forms += [{"type": "null"}] if name in EMPTY_FORMS else []
        found[name] = _any(*forms) if len(forms) > 1 else schema
    return found


def reference() -> Iterator[str]:
    """The keys as Markdown, a table for each mapping; keys of a fragment or field stand once."""
    shared = {"DecodeFragment": _FRAGMENT, "DecodeField": _FIELD}
    for name, one in LANGUAGE.items():
        if name == "DecodeOpen":
            continue
        inherited = {} if name in shared else {**_FRAGMENT} if "fragment" in one.title else {}
        if name == "DecodeTime":
            inherited = {**_FIELD}
        keys = {key: told for key, told in one.keys.items() if inherited.get(key) is not told}
        if not keys:
            continue
        yield f"### {one.title}\n"
        yield "| key | what stands there | what it does |"
        yield "|---|---|---|"
        for key, told in keys.items():
            needed = " (required)" if key in one.required else ""
            yield f"| `{key}`{needed} | {_shown(told.schema)} | {told.told.replace('|', chr(92) + '|')} |"
        yield ""


def _shown(schema: Mapping[str, Any]) -> str:
    """A schema in words."""
    if "enum" in schema:
        words = [f"`{value}`" for value in schema["enum"]]
        return "a type" if len(words) > 20 else ", ".join(words)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("Decode")[2].lower()
        return f"*{'fragment' if name == 'open' else name}*"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_shown(one) for one in schema["anyOf"]))
    kinds = schema.get("type")
    if kinds == "array":
        return "a list"
    if kinds == "object":
        return "a mapping"
    names = {"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true, false"}
    listed = [kinds] if isinstance(kinds, str) else list(kinds or ())
    return " or ".join(names.get(kind, str(kind)) for kind in listed)


if __name__ == "__main__":
    print("\n".join(reference()))
