"""A product whose frames no layout can say: JSON and other frames under one topic, and texts of
`name=value`. A Python function of the plant decodes them, which is here written as a person would."""

from __future__ import annotations

import pprint
import re
from collections import Counter
from typing import Any, Final

from flows.heard import HeardFrame, counted
from flows.heard_kinds import Kind, body_of, shape_of
from flows.heard_names import metric_names
from flows.heard_product import Heard, metric_lines, object_fields
from flows.heard_rows import rows_of
from flows.scaffold import NUMBER, time_unit, yaml_text

LEAST_OTHERS: Final = 2  # frames of another shape, and
LEAST_SHARE: Final = 0.01  # of all: fewer are faults of the line, and stay rejects
_PAIR: Final = re.compile(r"([^\s,;=&\"]+)=(\"[^\"]*\"|[^\s,;=&\"]*)")
_STAMP: Final = re.compile(r"(?:^|[\s,;])([0-9]{10,19})\Z")
_MOST_WORDS: Final = 2  # beside the pairs: what the text is about, a time


def python_product(product: str, kind: Kind, head: str) -> tuple[str, str] | None:
    """The product file and the Python file of a kind; None where a layout can say it. head: the beginning
    of the product file."""
    if kind.shape == "csv" and not kind.others and not kind.frames[0].header:
        return _pairs(product, kind, head)
    return _mixed(product, kind, head)


def _text(product: str, head: str, metrics: list[str], why: str) -> str:
    function = yaml_text(f"products/{product}.py:decode")
    return "\n".join([f"{head}# {why}", f"decode: {{udf: {function}}}", *metrics])


# -- JSON and other frames under one topic


def _mixed(product: str, kind: Kind, head: str) -> tuple[str, str] | None:
    everything = len(kind.frames) + len(kind.others)
    if len(kind.others) < max(LEAST_OTHERS, LEAST_SHARE * everything):
        return None
    by_shape: dict[str, list[HeardFrame]] = {}
    for frame in (*kind.frames, *kind.others):
        by_shape.setdefault(shape_of(frame)[0], []).append(frame)
    objects = by_shape.pop("json", [])
    bodies = [body_of(frame.payload, "json") for frame in objects]
    if not objects or rows_of(bodies) is not None or not all(isinstance(body, dict) for body in bodies):
        return None
    time, fields = object_fields(kind, bodies)
    heard = {name: one for name, (_, one) in fields.items()}
    words = by_shape.pop("csv", [])
    rest = [frame for frames in by_shape.values() for frame in frames]
    others = []
    for name, frames, written in (("text", words, "as_text"), ("frame", rest, "as_hex")):
        if not frames:
            continue
        own = name if name not in heard else f"other_{name}"
        heard[own] = one = Heard()
        one.frames = len(frames)
        for frame in frames[:100]:
            one.texts[frame.payload.decode().strip() if name == "text" else frame.payload.hex()] = None
        others.append((own, written, frames))
    told = counted(len(words) + len(rest), "other frame")
    why = f"JSON and {told} came under one topic: a function decodes both"
    paths = {name: path for name, (path, _) in fields.items()}
    named = "None" if time is None else repr((time[0], _per_ms(time[1].sample)))
    code = [
        _MIXED.format(product=product, paths=pprint.pformat(paths, width=100, sort_dicts=False), time=named)
    ]
    for own, written, frames in others:
        if written == "as_text":
            code.append(f"    if is_text(frame):\n        return {{{own!r}: frame.decode().strip()}}")
        else:
            sizes = Counter(len(frame.payload) for frame in frames)
            told = ", ".join(f"{size} bytes {count}x" for size, count in sorted(sizes.items())[:6])
            code += [
                '    # TODO: give their bytes names, e.g. int.from_bytes(frame[1:3], "big") / 10',
                f"    # heard: {told}; the first: {frames[0].payload[:24].hex(' ')}",
                f"    return {{{own!r}: frame.hex()}}",
            ]
    if others[-1][1] == "as_text":
        code.append('    raise ValueError("neither JSON nor text")')
    return _text(product, head, metric_lines(heard, everything), why), "\n".join([*code, ""])


def _per_ms(sample: Any) -> float:
    """What a number of a time is multiplied with to be milliseconds; 0 for a text."""
    return {"s": 1e3, "ms": 1, "us": 1e-3, "ns": 1e-6, "": 0}[time_unit(sample)]


# -- texts of name=value


def _pairs(product: str, kind: Kind, head: str) -> tuple[str, str] | None:
    rows = [pairs_of(frame.payload.decode()) for frame in kind.frames]
    if not all(rows):
        return None
    heard: dict[str, Heard] = {}
    for row in rows:
        for name, value in row or ():
            heard.setdefault(name, Heard()).take(float(value) if NUMBER.match(value) else value)
    names = {path[0]: name for path, name in metric_names((name,) for name in heard).items()}
    metrics = {names[str(told)]: one for told, one in heard.items()}
    texts = [names[told] for told, one in heard.items() if one.texts]
    stamps = [_STAMP.search(frame.payload.decode().strip()) for frame in kind.frames]
    unit = time_unit(float(stamps[0][1])) if stamps[0] and all(stamps) else ""
    for one in heard.values():
        if one.texts and one.low <= one.high:  # a number only now and then
            one.texts, one.low, one.high = {"...": None} | one.texts, 1, 0
    code = _PAIRS.format(
        product=product,
        names=pprint.pformat({str(told): name for told, name in names.items()}, width=100, sort_dicts=False),
        texts=repr(tuple(texts)),
        unit=_per_ms(float(stamps[0][1])) if stamps[0] and unit else 0,
    )
    return _text(product, head, metric_lines(metrics, len(rows)), "no layout reads `name=value`"), code


def pairs_of(text: str) -> list[tuple[str, str]] | None:
    """The names and values of `temp=21.5,state=RUN`, quotes taken off; None for another text."""
    rest = re.split(r"[\s,;&]+", _PAIR.sub("", text.strip()))
    found = [(name, value.strip('"')) for name, value in _PAIR.findall(text)]
    return found if found and len([word for word in rest if word]) <= _MOST_WORDS else None


_MIXED: Final = '''\
"""{product}: JSON and other frames under one topic. See docs/decode.md, "A Python function instead"."""

import json
from datetime import datetime, timezone

METRICS = {paths}  # metric: where it stands in JSON
TIME = {time}  # where the time stands, and milliseconds a unit (0: a text)


def decode(frames):
    return [one(frame) for frame in frames]


def one(frame):
    if not frame.lstrip().startswith(b"{{"):
        return [{{"time": None, "metrics": other(frame)}}]
    body = json.loads(frame)
    found = {{name: member(body, path) for name, path in METRICS.items()}}
    metrics = {{name: value for name, value in found.items() if value is not ABSENT}}
    return [{{"time": time(body), "metrics": metrics}}]


ABSENT = object()


def member(body, path):
    for part in path:
        if isinstance(part, int):
            there = isinstance(body, list) and part < len(body)
        else:
            there = isinstance(body, dict) and part in body
        if not there:
            return ABSENT
        body = body[part]
    return body if body is None or isinstance(body, (bool, int, float, str)) else ABSENT


def time(body):
    told = ABSENT if TIME is None else member(body, TIME[0])
    if told is ABSENT or told is None:
        return None
    if TIME[1]:
        return told * TIME[1]
    at = datetime.fromisoformat(told)
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp() * 1000


def is_text(frame):
    try:
        return frame.decode().strip().isprintable()
    except UnicodeDecodeError:
        return False


def other(frame):\
'''
_PAIRS: Final = '''\
"""{product}: texts of name=value. See docs/decode.md, "A Python function instead"."""

import re

METRICS = {names}  # as it stands in the text: metric
TEXTS = {texts}  # metrics that are texts; the others are numbers
STAMP = {unit}  # milliseconds a unit of the number at the end, if that is a time; 0: it is none
PAIR = re.compile(r"([^\\s,;=&\\"]+)=(\\"[^\\"]*\\"|[^\\s,;=&\\"]*)")


def decode(frames):
    return [one(frame.decode()) for frame in frames]


def one(text):
    found = {{METRICS.get(name, name): value.strip('"') for name, value in PAIR.findall(text)}}
    if not found:
        return "no name=value is in it"
    at = text.split()[-1].rpartition(",")[2] if STAMP else ""
    time = int(at) * STAMP if at.isdigit() else None
    return [{{"time": time, "metrics": {{name: value_of(name, value) for name, value in found.items()}}}}]


def value_of(name, value):
    if name in TEXTS:
        return value
    try:
        return float(value)
    except ValueError:
        return None
'''
