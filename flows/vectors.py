"""Golden vectors: frames that a product file holds, run through the decoder of the engine.

What a vector says wrongly, and what comes out differently, are problems at their places, with the
bytes that became the value where the layout is binary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flows.frame_answers import by_decoder
from flows.plant_file import Plant, Product
from flows.plant_tests import parse_time
from flows.plant_vectors import Value, Vector, VectorReading
from operators.decode.binary_tree import BinarySpec
from operators.decode.explain import Answer, Frame, explain, iso_time
from operators.decode.spec import ProductDecode
from operators.decode.udf_spec import UdfSpec
from operators.document import Node, Problem, Problems, load_yaml, nearest
from operators.rejects import Reason

CLOSE: Final = 1e-12  # relative difference of numbers that count as equal: what `derive` may round
_MILLISECOND: Final = 1_000_000
_SHOWN_BYTES: Final = 16
_EXACT: Final = 2.0**53


@dataclass(frozen=True, slots=True)
class Ran:
    """One vector that was run. number: its place in the list; problems: what differs."""

    file: str
    productId: str
    number: int
    name: str
    problems: tuple[Problem, ...]


def run_plant_vectors(plant: Plant) -> list[Ran]:
    """The vectors of every product of a plant, in the order of the files."""
    found: list[Ran] = []
    for path, data in plant.files.items():
        if not path.startswith("products/") or b"vectors" not in data:
            continue
        for node in load_yaml(data.decode("utf-8-sig"), path, Problems()):
            name = node.get("productId")
            product = plant.products.get(str(name.value)) if name is not None else None
            if product is not None and product.vectors:
                found.extend(run_vectors(node, product))
    return found


def run_vectors(node: Node, product: Product) -> list[Ran]:
    """The vectors of one product. node: its document, for the places."""
    listed = list(node.get("vectors") or ())
    problems = [
        _spoken(place, vector, product) for place, vector in zip(listed, product.vectors, strict=True)
    ]
    runnable = [n for n, wrong in enumerate(problems) if not wrong.found]
    frames = [_frame(product.vectors[n], product) for n in runnable]
    types = tuple((name, metric.type) for name, metric in product.metrics.items())
    decode = ProductDecode(product.productId, product.decode, types)
    headers = [product.vectors[n].header for n in runnable]
    answers = by_decoder(decode, frames, headers) if frames else []
    if isinstance(product.decode.layout, UdfSpec):
        _alone(decode, frames, answers, [(listed[n], problems[n]) for n in runnable])
    for n, frame, answer in zip(runnable, frames, answers, strict=True):
        _Comparison(product, listed[n], product.vectors[n], frame, answer, problems[n]).run()
    return [
        Ran(place.file, product.productId, n, vector.name, tuple(wrong.sorted()))
        for n, (place, vector, wrong) in enumerate(zip(listed, product.vectors, problems, strict=True))
    ]


def _alone(
    decode: ProductDecode,
    frames: Sequence[Frame],
    answers: Sequence[Answer],
    told: Sequence[tuple[Node, Problems]],
) -> None:
    """A function whose answer depends on the frames around it would replay otherwise than it ran."""
    backwards = by_decoder(decode, frames[::-1])[::-1]
    for frame, answer, other, (node, problems) in zip(frames, answers, backwards, told, strict=True):
        (single,) = by_decoder(decode, [frame])
        if not answer.as_object() == other.as_object() == single.as_object():
            problems.add(
                node, "the answer depends on the frames around it; keep nothing from one frame to the next"
            )


def sample_answer(product: Product, payload: bytes, port: int, header: str = "") -> Answer:
    """What one frame gives by the decoder of a product. header: of its CSV file, "" = none."""
    types = tuple((name, metric.type) for name, metric in product.metrics.items())
    decode = ProductDecode(product.productId, product.decode, types)
    (answer,) = by_decoder(decode, [Frame(payload, port)], [header])
    return answer


def _spoken(node: Node, vector: Vector, product: Product) -> Problems:
    """What is wrong with a vector before anything is decoded."""
    problems = Problems()
    inputs = [key for key in ("hex", "text", "json") if key in node.keys]
    if len(inputs) != 1:
        problems.add(node, "the frame is missing; write one of hex, text and json")
    elif vector.payload() is None:
        problems.add(node.get("hex") or node, "is not hexadecimal; pairs of digits, blanks between are fine")
    outputs = [key for key in ("values", "readings", "reject", "ignored") if key in node.keys]
    if len(outputs) != 1:
        told = "what comes out is missing" if not outputs else f"{' and '.join(outputs)} exclude each other"
        problems.add(node, f"{told}; write one of values, readings, reject and ignored")
    reasons = [reason.name for reason in Reason]
    if vector.reject is not None and vector.reject not in reasons:
        mend = nearest(vector.reject, reasons) or f"; one of {', '.join(reasons)}"
        problems.add(node.get("reject") or node, f"no reason '{vector.reject}' of a reject{mend}")
    for where, one in _expected(node, vector):
        if one.time is not None and parse_time(one.time, 0) is None:
            problems.add(where.get("time") or where, 'a time such as "2026-03-01T09:00:00Z" is expected')
        for name in one.values:
            if name not in product.metrics:
                told = f"no metric '{name}' in {product.productId}{nearest(name, product.metrics)}"
                problems.add(where.get("values") or where, told, key=name)
        for child in where.get("absent") or ():
            if child.value not in product.metrics:
                told = f"no metric '{child.raw}' in {product.productId}{nearest(child.raw, product.metrics)}"
                problems.add(child, told)
    if vector.received is not None and parse_time(vector.received, 0) is None:
        problems.add(node.get("received") or node, 'a time such as "2026-03-01T09:00:00Z" is expected')
    return problems


def _expected(node: Node, vector: Vector) -> Iterator[tuple[Node, VectorReading]]:
    if vector.readings is not None:
        yield from zip(node.get("readings") or (), vector.readings, strict=True)
    elif vector.values is not None:
        yield node, VectorReading(values=vector.values, time=vector.time, absent=vector.absent)


def _frame(vector: Vector, product: Product) -> Frame:
    received = parse_time(vector.received, 0) if vector.received is not None else None
    params = {name: value for name, value in product.params.items() if not isinstance(value, str)}
    return Frame(
        vector.payload() or b"",
        vector.port,
        None if received is None else received * _MILLISECOND,
        {**params, **vector.params},
    )


@dataclass(slots=True)
class _Comparison:
    """One vector against what its frame gave."""

    product: Product
    node: Node
    vector: Vector
    frame: Frame
    answer: Answer
    problems: Problems

    def run(self) -> None:
        node, vector, answer = self.node, self.vector, self.answer
        if vector.reject is not None:
            self._reject(node.get("reject") or node)
        elif answer.reject is not None:
            reason, _, message = answer.reject
            self.problems.add(node, f"the frame is rejected: {reason}: {message}")
        elif vector.ignored:
            if answer.readings or not answer.ignored:
                told = f"{_count(answer)} came out; expected: the layout ignores the frame"
                self.problems.add(node.get("ignored") or node, told)
        else:
            self._readings()

    def _reject(self, node: Node) -> None:
        vector, answer = self.vector, self.answer
        if answer.reject is None:
            told = "the layout ignores the frame" if answer.ignored else f"{_count(answer)} came out"
            self.problems.add(node, f"expected a reject {vector.reject}, but {told}{_values(answer)}")
            return
        reason, offset, message = answer.reject
        if reason != vector.reject:
            told = f"expected {vector.reject}, but the frame is rejected as {reason}: {message}"
            self.problems.add(node, told)
        elif vector.offset is not None and vector.offset != offset:
            told = f"expected {vector.offset}, but the frame is rejected at byte {offset}: {message}"
            self.problems.add(self.node.get("offset") or node, told)

    def _readings(self) -> None:
        expected = list(_expected(self.node, self.vector))
        found = self.answer.readings
        if len(found) != len(expected):
            place = self.node.get("readings") or self.node.get("values") or self.node
            noun = "reading" if len(expected) == 1 else "readings"
            told = (
                f"expected {len(expected)} {noun}, but {_count(self.answer)} came out{_values(self.answer)}"
            )
            self.problems.add(place, told)
        for number, ((node, one), (ts, metrics)) in enumerate(zip(expected, found, strict=False)):
            self._values(node, one, metrics, number)
            if one.time is not None and (at := parse_time(one.time, 0)) is not None:
                shown = iso_time(ts) or "the time of arrival"
                if ts is None or at != ts // _MILLISECOND:
                    place = node.get("time") or node
                    self.problems.add(place, f"expected {iso_time(at * _MILLISECOND)}, got {shown}")

    def _values(self, node: Node, one: VectorReading, metrics: Mapping[str, Any], number: int) -> None:
        told = node.get("values")
        for name, value in one.values.items():
            if name in metrics and equal(value, metrics[name]):
                continue
            place = (told.get(name) if told is not None else None) or node
            if name not in metrics:
                has = f"; the reading has {', '.join(metrics)}" if metrics else ""
                self.problems.add(place, f"expected {_shown(value)}, but '{name}' is not in the reading{has}")
            else:
                got = f"expected {_shown(value)}, got {_shown(metrics[name])}"
                self.problems.add(place, got + self._bytes(name, number))
        for child in node.get("absent") or ():
            if child.value in metrics:
                self.problems.add(child, f"expected to be absent, got {_shown(metrics[child.raw])}")

    def _bytes(self, name: str, number: int) -> str:
        """`, from bytes 3..4: 09 24` where a layout is what decodes the frame."""
        layout = self.product.decode.layout
        if not isinstance(layout, BinarySpec) or self.product.decode.encoding != "raw":
            return ""
        (answer,) = explain(layout, [self.frame], point=True)
        for one in answer.pointed:
            if one.name == name and one.reading in (number, -1) and one.end_bit > one.first_bit:
                low, high = one.first_bit // 8, (one.end_bit + 7) // 8
                data = self.frame.payload[low:high]
                more = " .." if len(data) > _SHOWN_BYTES else ""
                what = f"byte {low}" if high == low + 1 else f"bytes {low}..{high - 1}"
                return f", from {what}: {data[:_SHOWN_BYTES].hex(' ').upper()}{more}"
        return ""


def equal(expected: Value, found: Any) -> bool:
    """Texts, booleans and null are equal as they stand, numbers to one part in 10^12."""
    if isinstance(expected, bool) or isinstance(found, bool):
        return isinstance(expected, bool | int) and isinstance(found, bool | int) and expected == found
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return expected == found or math.isclose(expected, found, rel_tol=CLOSE, abs_tol=0.0)
    return bool(expected == found) and type(expected) is type(found)


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def _count(answer: Answer) -> str:
    many = len(answer.readings)
    return f"{many} reading{'s' * (many != 1)}"


def _values(answer: Answer) -> str:
    if not answer.readings:
        return ""
    metrics = answer.readings[0][1]
    return ": " + ", ".join(f"{name} = {_shown(value)}" for name, value in metrics.items())


def told_problems(ran: Sequence[Ran], problems: Problems) -> None:
    """Adds what differs to the problems of a check."""
    for one in ran:
        problems.found.extend(one.problems)
