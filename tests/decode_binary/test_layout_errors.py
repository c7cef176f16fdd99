"""What is wrong with a layout is told at its place, with the mend."""

from __future__ import annotations

import pytest

from operators.decode.binary_spec import parse_binary_spec
from operators.document import Problems, load_yaml

CASES = [
    (
        "fields: {a: {as: uint16_t}, b: {as: float}}\ntlv: {keys: u8, items: {'01 02': {a: {}}}}",
        ["a", "b"],
        "spec.yaml:1:18  fields.a.as: unknown type 'uint16_t'; did you mean 'u16'?\n"
        "spec.yaml:1:37  fields.b.as: unknown type 'float'; did you mean 'f32'?\n"
        "spec.yaml:2:6  tlv: 'key' is missing: the types of an item's key, such as [u8, u8]\n"
        "spec.yaml:2:7  tlv.keys: unknown key 'keys'; did you mean 'key'?",
    ),
    (
        "fields:\n  a: {at: 0, as: s24e}\n  b: {at: 1, scal: 2}",
        ["a", "b"],
        "spec.yaml:2:18  fields.a.as: unknown type 's24e'; did you mean 's24le'?\n"
        "spec.yaml:3:14  fields.b.scal: unknown key 'scal'; did you mean 'scale'?",
    ),
    (
        "fields:\n  tempc: {at: 1}",
        ["tempC"],
        "spec.yaml:2:10  fields.tempc: no metric 'tempc' under 'metrics'; did you mean 'tempC'?;"
        " declare it, or begin its name with '_' if it is internal",
    ),
    (
        "cases:\n"
        "  - when: {port: 1, length: 4}\n"
        "    fields: {a: {at: 3, as: u16}}\n"
        "  - when: {port: 1, length: 4, byte: {0: 1}}\n"
        "  - else: reject\n"
        "  - when: {port: 2}",
        None,
        "spec.yaml:3:17  cases[0].fields.a: bytes 3..4 lie beyond the stated length of 4\n"
        "spec.yaml:4:5  cases[1]: this case is never reached: cases[0] takes all of its frames\n"
        "spec.yaml:6:5  cases[3]: this case is never reached: it stands behind 'else'",
    ),
    (
        "fields: {a: {at: 0, as: u32}, b: {at: 2, as: u16}}",
        None,
        "spec.yaml:1:34  fields.b: warning: shares bytes with 'a'; if that is meant, write at: same",
    ),
    (
        'fields: {a: {}}\nderive: {c: "aa + 1", d: "param.x"}',
        None,
        "spec.yaml:2:14  derive.c: nothing in this layout gives 'aa'; did you mean 'a'?\n    aa + 1\n    ^~",
    ),
    (
        'fields: {a: {}}\nderive: {d: "a +", e: "rate(a)"}',
        None,
        "spec.yaml:2:16  derive.d: the expression ends where a value is expected\n    a +\n      ^\n"
        "spec.yaml:2:24  derive.e: a layout sees one frame at a time; use this in a rule\n"
        "    rate(a)\n    ^~~~~~~",
    ),
    (
        'tlv: {key: [u8, u8], items: {"01": {a: {}}, "0G 01": {a: {}}}}\nrecord: lgo\nrecords: {log: {}}',
        None,
        "spec.yaml:1:36  tlv.items.01: the key '01' has 1 part where 2 are expected;"
        ' write them in hex with blanks between, in quotes: "03 67"\n'
        "spec.yaml:1:54  tlv.items.0G 01: '0G' is no key of 2 hex digits\n"
        "spec.yaml:2:9  record: no record 'lgo' under 'records'; did you mean 'log'?",
    ),
    (
        "tlv: {key: u8, unknown: skip, items: [regs]}\nuse: x\ncheck: {crc17: {}}",
        None,
        "spec.yaml:1:16  tlv.unknown: unknown items can be skipped only where 'length' tells how far\n"
        "spec.yaml:1:39  tlv.items[0]: no table 'regs' under 'tables'\n"
        "spec.yaml:2:6  use: no fragment 'x' under 'fragments'\n"
        "spec.yaml:3:9  check.crc17: unknown key 'crc17'; did you mean 'crc16'?",
    ),
    (
        "fragments: {a: {use: b}, b: {use: a}}\nuse: a",
        None,
        "spec.yaml:1:35  fragments.b.use: fragments use each other in a circle: a -> b -> a",
    ),
    (
        "fields: {a: 5, b: {bit: 9}, g: {scale: abc}, h: {map: {0: x}, scale: 2}}",
        None,
        "spec.yaml:1:13  fields.a: a field is a mapping such as {at: 2, as: s16, scale: 0.1}, not '5'\n"
        "spec.yaml:1:25  fields.b.bit: a container of 1 bytes has bits 7..0\n"
        'spec.yaml:1:40  fields.g.scale: a number or a fraction such as "165/65536" is expected,'
        " not 'abc'\n"
        "spec.yaml:1:50  fields.h.map: with 'map' there is no scale and no offset",
    ),
]


@pytest.mark.parametrize(("text", "metrics", "expected"), CASES)
def test_every_problem_with_its_place(text: str, metrics: list[str] | None, expected: str) -> None:
    problems = Problems()
    (node,) = load_yaml(text, "spec.yaml", problems)
    spec = parse_binary_spec(node, metrics, None, problems)
    assert problems.render() == expected
    assert (spec is None) == bool(problems.errors)
