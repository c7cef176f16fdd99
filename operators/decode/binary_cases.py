"""Conditions of cases and sections, and the check that every case can be reached."""

from __future__ import annotations

from fractions import Fraction

from operators.decode.binary_fields import Reader, number, parse_test, shown
from operators.decode.binary_tree import Case, Ranges, When
from operators.document import Node, scalar

Spans = list[tuple[Fraction | None, Fraction | None]]


def parse_when(reader: Reader, node: Node) -> When:
    """`when:`, all of whose keys are required."""
    found = When()
    if not node.is_map:
        reader.error(node, f"conditions such as {{port: 1, length: 10}} are expected, not {shown(node)}")
        return found
    reader.keys(node, ("port", "length", "byte", "mask", "if"))
    found.port = _numbers(reader, node.get("port"))
    found.length = _numbers(reader, node.get("length"), length=True)
    if (byte := node.get("byte")) is not None:
        for at, test in _by_byte(reader, byte):
            ranges = _numbers(reader, test)
            if ranges is not None:
                found.byte.append((at, ranges))
    if (mask := node.get("mask")) is not None:
        for at, test in _by_byte(reader, mask):
            values = [reader.integer(child, 0, 0, 255) for child in test]
            if len(values) < 2:
                reader.error(test, "[mask, value] or [mask, value, value] is expected")
            else:
                found.mask.append((at, values[0], tuple(values[1:])))
                for child, value in zip(list(test)[1:], values[1:], strict=True):
                    if value & ~values[0]:
                        reader.error(child, f"0x{value:02X} has bits outside the mask 0x{values[0]:02X}")
    if (condition := node.get("if")) is not None:
        found.condition = reader.expression(condition)
    return found


def _numbers(reader: Reader, node: Node | None, *, length: bool = False) -> Ranges | None:
    ranges = parse_test(reader, node, length=length)
    if ranges is not None and node is not None and ranges.texts:
        reader.error(node, f"'{ranges.texts[0]}' is no number and no range such as \"10..12\"")
    return ranges


def _by_byte(reader: Reader, node: Node) -> list[tuple[int, Node]]:
    if not node.is_map:
        reader.error(
            node, f"a mapping from bytes to tests such as {{0: 0x14}} is expected, not {shown(node)}"
        )
        return []
    found = []
    for key, child in node.items():
        at = scalar(key)
        if isinstance(at, bool) or not isinstance(at, int):
            reader.error(node, f"'{key}' is no place of a byte", key)
        else:
            found.append((int(number(key)), child))
    return found


def check_cases(reader: Reader, cases: list[Case]) -> None:
    """Cases that an earlier one always takes are errors."""
    for place, case in enumerate(cases):
        for earlier in cases[:place]:
            if earlier.when is None:
                reader.error(case.node, "this case is never reached: it stands behind 'else'")
                break
            if case.when is not None and _covers(earlier.when, case.when):
                where = earlier.node.path
                reader.error(case.node, f"this case is never reached: {where} takes all of its frames")
                break


def _covers(earlier: When, later: When) -> bool:
    """Every frame that `later` holds for, `earlier` holds for too (told by the conditions alone)."""
    if earlier.condition is not None and earlier.condition != later.condition:
        return False
    for mine, other in ((earlier.port, later.port), (earlier.length, later.length)):
        if mine is not None and (other is None or not _within(other, mine)):
            return False
    known = dict(later.byte)
    for at, ranges in earlier.byte:
        if at not in known or not _within(known[at], ranges):
            return False
    masks = {(at, mask): set(values) for at, mask, values in later.mask}
    return all((at, mask) in masks and masks[at, mask] <= set(values) for at, mask, values in earlier.mask)


def _within(inner: Ranges, outer: Ranges) -> bool:
    if inner.multiple or outer.multiple:
        return (inner.multiple, inner.plus) == (outer.multiple, outer.plus)
    return all(any(_inside(span, wide) for wide in outer.ranges) for span in inner.ranges)


def _inside(
    span: tuple[Fraction | None, Fraction | None], wide: tuple[Fraction | None, Fraction | None]
) -> bool:
    low = wide[0] is None or (span[0] is not None and span[0] >= wide[0])
    high = wide[1] is None or (span[1] is not None and span[1] <= wide[1])
    return low and high
