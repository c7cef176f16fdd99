"""The binary decode language, interpreted the plain way: dicts, recursion, exact fractions.

Written from the text of docs/decode.md; it imports nothing of the engine. `decode(spec, payload)`
gives {"readings": [(time in ns or None, {metric: value})]}, {"reject": (reason, offset)} or, for a
frame that a case ignores, {"readings": []}.
"""

from __future__ import annotations

import datetime
import math
import re
import struct
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

import yaml

ABSENT = object()
PARTS = (
    *("order", "size", "skip", "check", "time", "fields", "bits", "sections", "tlv", "cases", "record"),
    *("select", "derive", "use", "prefix"),
)
UNITS = {
    "ns": 1,
    "us": 1000,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}


class Rejected(Exception):
    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.offset = reason, offset


class Ignored(Exception):
    pass


# ---------------------------------------------------------------- the file


def load(text: str) -> Any:
    """YAML 1.2 scalars; decimals as exact fractions."""
    return convert(yaml.compose(text, yaml.SafeLoader))


def convert(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {scalar(k): convert(v) for k, v in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [convert(v) for v in node.value]
    return scalar(node)


def scalar(node: Any) -> Any:
    return node.value if node.style else word(node.value)


def word(text: str) -> Any:
    if text in ("", "null", "~"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"[-+]?0x[0-9a-fA-F]+", text):
        return int(text, 16)
    if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text) and not re.match(
        r"0[0-9]", text
    ):
        return Fraction(text)
    return text


def exact(value: Any) -> Fraction:
    if isinstance(value, str):
        top, _, bottom = value.partition("/")
        return Fraction(top.strip()) / (Fraction(bottom.strip()) if bottom else 1)
    return Fraction(value)


def span(text: Any) -> tuple[Any, Any] | None:
    if isinstance(text, str) and ".." in text:
        ends = [word(end.strip()) for end in text.split("..")]
        if len(ends) == 2 and all(end is None or isinstance(end, int | Fraction) for end in ends):
            return ends[0], ends[1]
    return None


def fits(test: Any, value: Any) -> bool:
    if isinstance(test, dict):
        return value >= test.get("plus", 0) and (value - test.get("plus", 0)) % test.get("multiple", 1) == 0
    if isinstance(test, list):
        return any(fits(one, value) for one in test)
    ends = span(test)
    if ends is not None and not isinstance(value, str):
        return (ends[0] is None or value >= ends[0]) and (ends[1] is None or value <= ends[1])
    if isinstance(test, str) != isinstance(value, str):
        return str(test) == value if isinstance(value, str) else False
    return bool(test == value)


def mapped(table: dict[Any, Any], code: Any) -> Any:
    """The value of a code, ABSENT where there is none and no `else`."""
    for key, value in table.items():
        plain = word(key) if isinstance(key, str) and not isinstance(code, str) else key
        if key != "else" and span(key) is None and not isinstance(plain, str) and plain == code:
            return value
        if key != "else" and isinstance(code, str) and str(key) == code:
            return value
    for key, value in table.items():
        if key != "else" and span(key) is not None and not isinstance(code, str) and fits(key, code):
            return value
    return table.get("else", ABSENT)


# ---------------------------------------------------------------- expressions

TOKEN = re.compile(
    r"\s*(?:(0[xX][0-9a-fA-F]+|[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+)|(`[^`]*`|[^\W\d]\w*)|('[^']*')|"
    r"(\*\*|==|!=|<=|>=|[-+*/%<>().,]))"
)


class Null(Exception):
    pass


class Absent(Exception):
    pass


def evaluate(text: Any, env: Any) -> Any:
    """A value, None for null, ABSENT."""
    if not isinstance(text, str):
        return text if isinstance(text, bool | int) else float(text)
    tokens, at = [], 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        assert match, text[at:]
        kind = next(n for n, group in enumerate(match.groups()) if group is not None)
        tokens.append((kind, match.groups()[kind]))
        at = match.end()
    tokens.append((9, ""))
    parser = Parser(tokens)
    tree = parser.either()
    assert parser.peek() == "", text
    return run(tree, env)


class Parser:
    def __init__(self, tokens: list[tuple[int, str]]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self) -> str:
        return self.tokens[self.at][1]

    def take(self, *words: str) -> str | None:
        if self.peek() in words and self.tokens[self.at][0] in (1, 3):
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def chain(self, below: Any, *words: str) -> Any:
        left = below()
        while op := self.take(*words):
            left = (op, left, below())
        return left

    def either(self) -> Any:
        return self.chain(self.both, "or")

    def both(self) -> Any:
        return self.chain(self.negation, "and")

    def negation(self) -> Any:
        return ("not", self.negation()) if self.take("not") else self.comparison()

    def comparison(self) -> Any:
        left = self.sum()
        op = self.take("==", "!=", "<=", ">=", "<", ">")
        return (op, left, self.sum()) if op else left

    def sum(self) -> Any:
        return self.chain(self.product, "+", "-")

    def product(self) -> Any:
        return self.chain(self.unary, "*", "/", "%")

    def unary(self) -> Any:
        return ("neg", self.unary()) if self.take("-") else self.power()

    def power(self) -> Any:
        left = self.atom()
        return ("**", left, self.unary()) if self.take("**") else left

    def atom(self) -> Any:
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == 0:
            return ("value", int(text, 0) if re.fullmatch(r"0[xX].*|[0-9]+", text) else float(text))
        if kind == 2:
            return ("value", text[1:-1])
        if text == "(":
            inner = self.either()
            assert self.take(")")
            return inner
        if text in ("true", "false", "null"):
            return ("value", {"true": True, "false": False, "null": None}[text])
        assert kind == 1, text
        if self.take("("):
            arguments = [self.either()]
            while self.take(","):
                arguments.append(self.either())
            assert self.take(")")
            return (text, *arguments)
        parts = [text.strip("`")]
        while self.take("."):
            parts.append(self.tokens[self.at][1].strip("`"))
            self.at += 1
        return ("name", ".".join(parts))


def run(tree: Any, env: Any) -> Any:
    try:
        return strict(tree, env)
    except Null:
        return None
    except Absent:
        return ABSENT


def number(value: Any) -> Any:
    if isinstance(value, str):
        raise Null
    return int(value) if isinstance(value, bool) else value


def strict(tree: Any, env: Any) -> Any:
    """The value; raises Null or Absent."""
    op, *args = tree
    if op == "value":
        if args[0] is None:
            raise Null
        return args[0]
    if op == "name":
        value = env(args[0])
        if value is ABSENT:
            raise Absent
        if value is None:
            raise Null
        return value
    if op == "if":
        return strict(args[1] if number(strict(args[0], env)) != 0 else args[2], env)
    if op == "default":
        value = run(args[0], env)
        return strict(args[1], env) if value is None or value is ABSENT else value
    if op in ("==", "!=") and ("value", None) in args:
        other = run(args[0] if args[1] == ("value", None) else args[1], env)
        if other is ABSENT:
            raise Absent
        return (other is None) == (op == "==")
    values = [run(arg, env) for arg in args]
    if op in ("and", "or"):
        values = [None if isinstance(v, str) else v for v in values]
        known = [v != 0 for v in values if v is not None and v is not ABSENT]
        if op == "and" and False in known:
            return False
        if op == "or" and True in known:
            return True
        if ABSENT in values:
            raise Absent
        if None in values:
            raise Null
        return op == "and"
    if any(value is ABSENT for value in values):
        raise Absent
    if any(value is None for value in values):
        raise Null
    if op in ("==", "!="):
        same = values[0] == values[1] and isinstance(values[0], str) == isinstance(values[1], str)
        return same == (op == "==")
    values = [number(value) for value in values]
    try:
        result = arithmetic(op, values)
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise Null from error
    if isinstance(result, complex) or (isinstance(result, float) and not math.isfinite(result)):
        raise Null
    if isinstance(result, int) and not isinstance(result, bool) and abs(result) > 1 << 1023:
        raise Null
    return result


def whole(value: Any) -> int:
    if value != math.floor(value):
        raise ValueError
    return int(value)


def arithmetic(op: str, v: list[Any]) -> Any:
    plain = {
        "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "%": lambda a, b: a % b, "**": lambda a, b: a**b, "pow": lambda a, b: a**b,
        "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
        "not": lambda a: a == 0, "neg": lambda a: -a, "abs": abs, "min": min, "max": max,
        "clamp": lambda a, lo, hi: min(max(a, lo), hi), "sqrt": math.sqrt, "exp": math.exp, "log": math.log,
        "log10": math.log10, "floor": math.floor, "ceil": math.ceil,
        "round": lambda a, d=0: half_away(a, whole(d)),
        "bitand": lambda a, b: whole(a) & whole(b), "bitor": lambda a, b: whole(a) | whole(b),
        "bitxor": lambda a, b: whole(a) ^ whole(b), "shr": lambda a, n: whole(a) >> whole(n),
        "shl": lambda a, n: whole(a) << whole(n),
    }  # fmt: skip
    if op == "popcount":
        if v[0] < 0:
            raise ValueError
        return whole(v[0]).bit_count()
    return plain[op](*v)


def half_away(value: Any, digits: int) -> float:
    """Half away from zero on the shortest decimal."""
    step = Decimal(1).scaleb(-digits)
    return float(Decimal(repr(value)).quantize(step, ROUND_HALF_UP))


# ---------------------------------------------------------------- the interpreter


class Reading:
    def __init__(self, outer: Reading | None = None) -> None:
        self.values: dict[str, Any] = {}
        self.raw: dict[str, Any] = {}
        self.time: int | None = None
        self.outer = outer

    def metrics(self) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if not name.startswith("_")}


class Place:
    """One activation of a fragment."""

    def __init__(self, base: int, end: int, reading: Reading, order: str, **around: Any) -> None:
        self.base, self.end, self.reading, self.order = base, end, reading, order
        self.cursor = self.previous = self.behind = self.far = base
        self.local: dict[str, Any] = {}
        self.parent: Place | None = around.get("parent")
        up = self.parent
        self.keys: list[int] = around.get("keys", up.keys if up else [])
        self.indexes: list[int] = around.get("indexes", up.indexes if up else [])
        self.prefix: str = around.get("prefix", up.prefix if up else "")
        self.policy: Any = around.get("policy", up.policy if up else None)

    def inner(self, base: int, end: int, **around: Any) -> Place:
        return Place(base, end, around.pop("reading", self.reading), self.order, parent=self, **around)

    def reach(self, end: int, from_end: bool = False) -> None:
        self.far = max(self.far, end)
        if not from_end:
            self.behind = max(self.behind, end)

    def resolve(self, at: int) -> int:
        return self.base + at if at >= 0 else self.end + at


class Frame:
    def __init__(
        self, spec: Any, payload: bytes, port: int | None, arrival: int, params: dict[str, float]
    ) -> None:
        self.spec, self.port, self.arrival, self.params = spec, port, arrival, params
        self.data = payload.ljust(spec.get("pad", 0), b"\0")
        self.lists: dict[str, int] = {}
        self.seen: dict[int, int] = {}
        self.readings: list[Reading] = []

    # names

    def lookup(self, place: Place | None, reading: Reading) -> Any:
        def env(name: str) -> Any:
            name = name.removeprefix("metrics.")
            if name == "frame.port":
                return ABSENT if self.port is None else self.port
            if name == "frame.length":
                return len(self.data)
            if name.startswith("param."):
                return self.params.get(name[6:], ABSENT)
            here = place
            while here is not None and here.reading is reading:
                for known in (name, *(k for k in here.local if bare(k) == name)):
                    if known in here.local:
                        return here.local[known]
                here = here.parent
            at: Reading | None = reading
            while at is not None:
                if name in at.values:
                    return at.values[name]
                at = at.outer
            return ABSENT

        return env

    def value(self, text: Any, place: Place) -> Any:
        return evaluate(text, self.lookup(place, place.reading))

    def fill(self, name: str, place: Place, count: bool = True) -> str:
        def one(match: re.Match[str]) -> str:
            if match.group(1) is None:
                text = match.string[: match.start()]
                if match.group(3) and count:
                    self.lists[text] = self.lists.get(text, -1) + 1
                return f"[{max(self.lists.get(text, -1), 0)}]"
            what = match.group(1)
            n = 0
            if what.isdigit():
                n = place.keys[int(what)]
            elif len(what) <= len(place.indexes):
                n = place.indexes[-len(what)]
            return str(n + int((match.group(2) or "0").replace(" ", "")))

        return re.sub(r"\{(i{1,4}|[0-3])\s*([+-]\s*\d+)?\}|\[(\+?)\]", one, name)

    def write(self, name: str, value: Any, place: Place) -> None:
        if value is ABSENT:
            return
        if place.policy is not None or bare(name) != name or place.prefix:
            place.local[name] = value  # otherwise the reading has it, under the same name
        full = self.fill(name if name.startswith("_") else place.prefix + name, place)
        target, policy = place.reading, place.policy
        if policy is not None and policy["reading"] is target and policy["repeated"] != "last":
            seen, item = policy["seen"], policy["item"]
            again = full in seen and seen[full][0] != item
            if policy["repeated"] == "first" and again:
                return
            if policy["repeated"] == "reject" and again:
                raise Rejected("malformed", policy["at"])
            count = seen[full][1] + again if full in seen else 0
            seen[full] = (item, count)
            if policy["repeated"] == "list" and count:
                if full in target.values:
                    target.values[f"{full}[0]"] = target.values.pop(full)
                full = f"{full}[{count}]"
        target.values[full] = value

    # fields

    def field(self, spec: Any, place: Place, behind: bool = False) -> tuple[Any, Any]:
        """(raw, final) value of a field; (ABSENT, ABSENT) where it is absent."""
        spec = spec or {}
        if "if" in spec and not truth(self.value(spec["if"], place)):
            return ABSENT, ABSENT
        if "value" in spec:
            value = spec["value"]
            return ABSENT, float(value) if isinstance(value, Fraction) else value
        try:
            raw, integer = self.raw(spec, place, behind)
        except Rejected:
            if spec.get("optional"):
                return ABSENT, ABSENT
            raise
        if raw is ABSENT or raw is None:
            return raw, raw
        return raw, finish(spec, raw, integer)

    def bytes_at(self, at: int, size: int, place: Place) -> bytes:
        if at < place.base or at + size > place.end:
            raise Rejected("short", max(at, 0))
        return self.data[at : at + size]

    def raw(self, spec: Any, place: Place, behind: bool) -> tuple[Any, bool]:
        order = spec.get("order", place.order)
        if "key" in spec:
            return place.keys[spec["key"]], True
        if "pieces" in spec:
            value, width, far = 0, 0, place.base
            for at, bits in spec["pieces"]:
                at = place.resolve(at)
                low, count = bit_span(bits)
                byte = self.bytes_at(at, 1, place)[0]
                if width == 0:
                    place.previous = at
                value = value << count | (byte >> low & ((1 << count) - 1))
                width += count
                far = max(far, at + 1)
            place.cursor = far
            place.reach(far)
            return two(value, width) if spec.get("signed") else value, True
        at, from_end = place.cursor, False
        if behind:
            at = place.behind
        if "at" in spec:
            where = spec["at"]
            if where == "same":
                at = place.previous
            elif isinstance(where, str):
                where = self.value(where, place)
                if where is ABSENT or where is None or isinstance(where, str) or where != math.floor(where):
                    return (ABSENT if where is ABSENT else None), True
                at = place.resolve(int(where))
            else:
                at, from_end = place.resolve(where), where < 0
        kind, size, suffix = type_of(spec)
        if suffix == "ws":
            suffix += order if order == "le" else ""
        order = suffix.removesuffix("be") or order
        if "size" in spec:
            size = spec["size"]
            if size == "rest":
                size = max(place.end - at, 0)
            elif isinstance(size, str):
                size = self.value(size, place)
                if (
                    size is ABSENT
                    or size is None
                    or isinstance(size, str)
                    or size < 0
                    or size != math.floor(size)
                ):
                    return (ABSENT if size is ABSENT else None), True
                size = int(size)
        elif size is None:
            size = max(place.end - at, 0)
        data = self.bytes_at(at, size, place)
        place.previous, place.cursor = at, at + size
        place.reach(at + size, from_end)
        return convert_bytes(data, kind, order, spec)

    # constructs

    def length(self, spec: Any, place: Place) -> Any:
        """A count or size: a number, or "rest"."""
        if spec == "rest":
            return spec
        if isinstance(spec, dict):
            value = self.field(spec, place, "at" not in spec)[1]
        elif isinstance(spec, str):
            value = self.value(spec, place)
        else:
            return spec
        if value is ABSENT or value is None or isinstance(value, str):
            return 0
        return max(int(value), 0)

    def fragment(self, spec: Any, place: Place, own_record: Any = None) -> int:
        """Run a fragment; returns where it ends."""
        spec = self.used(spec or {})
        place.order = spec.get("order", place.order)
        place.prefix += str(spec.get("prefix", ""))
        for check in several(spec.get("check")):
            self.check(check, place)
        if "time" in spec:
            place.reading.time = self.time(spec["time"], place, own_record)
        place.cursor = place.base
        for name, one in (spec.get("fields") or {}).items():
            self.named(name, one, place)
        for bits in several(spec.get("bits")):
            self.bits(bits, place)
        for sections in several(spec.get("sections")):
            self.sections(sections, place)
        for tlv in several(spec.get("tlv")):
            self.tlv(tlv, place)
        if "cases" in spec:
            self.cases(spec["cases"], place)
        for name in several(spec.get("record")):
            self.record(self.spec["records"][name], place)
        if spec.get("skip"):
            if place.far + spec["skip"] > place.end:
                raise Rejected("short", place.end)
            place.far += spec["skip"]
            place.behind = max(place.behind, place.far)
        for key in spec:
            if key == "derive":
                for name, text in spec["derive"].items():
                    self.write(name, self.value(text, place), place)
            elif key == "select":
                for name, choice in spec["select"].items():
                    self.select(name, choice, place)
        if "size" in spec:
            return place.base + self.length(spec["size"], place)
        return place.far

    def used(self, spec: Any) -> Any:
        if "use" not in spec:
            return spec
        out: dict[str, Any] = {}
        for name in several(spec["use"]):
            merge(out, self.used(normal(self.spec["fragments"][name], ())))
        merge(out, {key: value for key, value in spec.items() if key != "use"})
        return out

    def named(self, name: str, spec: Any, place: Place) -> None:
        raw, value = self.field(spec, place)
        if raw is not ABSENT and raw is not None:
            place.reading.raw[name] = raw
        self.write(name, value, place)

    def bits(self, spec: Any, place: Place) -> None:
        at = place.resolve(spec["from"]) if "from" in spec else place.behind
        if at < place.base:
            raise Rejected("short", max(at, 0))
        lsb = spec.get("order", "msb") == "lsb"
        end = self.bit_list(spec["list"], place, at * 8, lsb)
        place.reach((end + 7) // 8)

    def bit_list(self, entries: Any, place: Place, at: int, lsb: bool) -> int:
        for entry in entries:
            if "list" in entry:
                count, k = self.length(entry.get("count", "rest"), place), 0
                while k < count if count != "rest" else at + max(least(entry["list"]), 1) <= place.end * 8:
                    inner = place.inner(place.base, place.end, indexes=[*place.indexes, k])
                    inner.local = place.local
                    before = at
                    at = self.bit_list(entry["list"], inner, at, lsb)
                    k += 1
                    if at == before and count == "rest":
                        break
            elif set(entry) == {"skip"}:
                at += entry["skip"]
            else:
                options = (
                    "scale",
                    "offset",
                    "signed",
                    "map",
                    "missing",
                    "valid",
                    "clamp",
                    "optional",
                    "if",
                    "round",
                )
                if "name" in entry and "width" in entry:
                    name, width = entry["name"], entry["width"]
                else:
                    name, width = next((k, v) for k, v in entry.items() if k not in options)
                if "if" in entry and not truth(self.value(entry["if"], place)):
                    continue
                if (at + width + 7) // 8 > place.end:
                    if entry.get("optional"):
                        continue
                    raise Rejected("short", at // 8)
                raw = 0
                for j in range(width):
                    byte, bit = divmod(at + j, 8)
                    if lsb:
                        raw |= (self.data[byte] >> bit & 1) << j
                    else:
                        raw = raw << 1 | (self.data[byte] >> (7 - bit) & 1)
                if entry.get("signed"):
                    raw = two(raw, width)
                at += width
                place.reading.raw[name] = raw
                self.write(name, finish({k: v for k, v in entry.items() if k in options}, raw, True), place)
        return at

    def holds(self, when: Any, place: Place, base: int) -> bool:
        if "port" in when and (self.port is None or not fits(when["port"], self.port)):
            return False
        if "length" in when and not fits(when["length"], len(self.data)):
            return False
        for what in ("byte", "mask"):
            for at, test in when.get(what, {}).items():
                at = word(at) if isinstance(at, str) else at
                at = base + at if at >= 0 else place.end + at
                if not base <= at < place.end:
                    return False
                byte = self.data[at]
                if what == "byte" and not fits(test, byte):
                    return False
                if what == "mask" and (byte & test[0]) not in test[1:]:
                    return False
        return "if" not in when or truth(self.value(when["if"], place))

    def cases(self, cases: Any, place: Place) -> None:
        for case in cases:
            if "else" in case:
                chosen = case["else"]
            elif self.holds(case["when"], place, place.base):
                chosen = "ignore" if case.get("ignore") else case
            else:
                continue
            if chosen == "reject":
                raise Rejected("unmatched")
            if chosen == "ignore":
                raise Ignored
            inner = place.inner(place.base, place.end)
            end = self.fragment({k: v for k, v in (chosen or {}).items() if k != "when"}, inner)
            place.far = max(place.far, end)
            place.behind = max(place.behind, end if "size" in (chosen or {}) else inner.behind)
            return
        raise Rejected("unmatched")

    def region(self, spec: Any, place: Place) -> tuple[int, int]:
        at = place.resolve(spec["from"]) if "from" in spec else place.behind
        end = place.resolve(spec["to"]) if "to" in spec else place.end
        if at < place.base:
            raise Rejected("short", max(at, 0))
        if end > place.end:
            raise Rejected("short", place.end)
        return at, max(at, end)

    def sections(self, spec: Any, place: Place) -> None:
        old, place.order = place.order, spec.get("order", place.order)
        mask = self.field(spec["mask"], place)[0] if "mask" in spec else 0
        at, end = self.region(spec, place)
        for entry in spec["list"]:
            here = place.inner(place.base, end)
            here.behind = at
            if "bit" in entry and not (isinstance(mask, int) and mask >> entry["bit"] & 1):
                continue
            if "when" in entry:
                probe = place.inner(place.base, end)
                if not self.holds(entry["when"], probe, at):
                    continue
            body = normal(entry, ("bit", "when", "count"))
            if "count" not in entry:
                at = self.fragment(body, place.inner(at, end))
                continue
            count, k = self.length(entry["count"], here), 0
            at = max(at, here.behind)
            size = body.get("size", 1)
            need = max(size, 1) if isinstance(size, int) else 1
            while k < count if count != "rest" else at + need <= end:
                after = self.fragment(body, place.inner(at, end, indexes=[*place.indexes, k]))
                k += 1
                if after == at and count == "rest":
                    break
                at = after
        place.order = old
        place.reach(at)

    def tlv(self, spec: Any, place: Place) -> None:
        at, end = self.region(spec, place)
        order = spec.get("order", place.order)
        items = self.table(spec["items"])
        policy: dict[str, Any] = {
            "repeated": spec.get("repeated", "last"), "reading": place.reading, "seen": {}, "item": 0, "at": 0
        }  # fmt: skip
        stop = spec.get("short", "reject") == "stop"
        unknown = spec.get("unknown", "stop")
        while at < end:
            saved = self.save(place.reading)
            try:
                after = self.item(spec, items, place, at, end, order, policy)
            except Rejected as error:
                if error.reason == "short" and stop:
                    self.back(place.reading, saved)
                    break
                raise
            if after is None:
                if unknown == "stop":
                    break
                if unknown == "reject":
                    raise Rejected("unmatched", at)
                at += 1
            else:
                at = after
        place.reach(at)

    def save(self, reading: Reading) -> Any:
        return dict(reading.values), reading.time, len(self.readings), dict(self.lists)

    def back(self, reading: Reading, saved: Any) -> None:
        values, reading.time, count, lists = saved
        reading.values.clear()
        reading.values.update(values)
        del self.readings[count:]
        self.lists = lists

    def table(self, items: Any) -> dict[str, Any]:
        if isinstance(items, str):
            return self.table(self.spec["tables"][items])
        out: dict[str, Any] = {}
        for part in items if isinstance(items, list) else [items]:
            for key, value in (part if isinstance(part, dict) else self.table(part)).items():
                out.pop(" ".join(key.upper().split()), None)
                out[" ".join(key.upper().split())] = value
        return out

    def item(
        self, spec: Any, items: Any, place: Place, at: int, end: int, order: str, policy: Any
    ) -> int | None:
        """Read one item; where the next begins, None if its key is unknown."""
        p, keys = at, []
        for part in several(spec["key"]):
            _, size, suffix = type_of({"as": part})
            if p + size > end:
                raise Rejected("short", at)
            keys.append(int.from_bytes(self.data[p : p + size], byte_order(suffix or order)))
            p += size
        size_of = None
        if "length" in spec:
            _, size, suffix = type_of({"as": spec["length"]})
            if p + size > end:
                raise Rejected("short", at)
            size_of = int.from_bytes(self.data[p : p + size], byte_order(suffix or order))
            p += size
        widths = [type_of({"as": part})[1] for part in several(spec["key"])]
        best = None
        for n, key in enumerate(items):
            for wild in matches(key, keys, widths):
                if best is None or (wild, n) < best[:2]:
                    best = (wild, n, key)
        if best is None and spec.get("unknown", "stop") != "skip":
            return None
        if size_of is not None and p + size_of > end:
            raise Rejected("short", p)
        if best is None:
            return p + (size_of or 0)
        body = normal(items[best[2]], ())
        k = self.seen.get(id(items[best[2]]), 0)
        self.seen[id(items[best[2]])] = k + 1
        policy["item"] += 1
        policy["at"] = at
        stop = p + size_of if size_of is not None else end
        if size_of is None and isinstance(body.get("size"), int):
            stop = min(end, p + body["size"])
        inner = place.inner(p, stop, keys=keys, indexes=[*place.indexes, k], policy=policy)
        inner.order = order
        after = self.fragment(body, inner)
        if size_of is not None:
            return p + size_of
        if after > end:
            raise Rejected("short", end)
        return after

    def record(self, spec: Any, place: Place) -> None:
        time = spec.get("time") or {}
        inner_order = spec.get("order", self.spec.get("order", "be"))
        old, place.order = place.order, inner_order
        anchor: Any = None
        if "relative" in time:
            anchor = self.anchor(time, place)
        at = place.resolve(spec["at"]) if "at" in spec else None
        count = self.length(spec.get("count", 1), place)
        size = self.length(spec["size"], place) if "size" in spec else None
        place.order = old
        at = place.behind if at is None else at
        end = place.resolve(spec["to"]) if "to" in spec else place.end
        if at < place.base or end > place.end:
            raise Rejected("short", max(at, 0))
        end = max(at, end)
        k = 0
        while k < count if count != "rest" else at + max(size or 1, 1) <= end:
            stop = end if size is None else max(at, min(end, at + size))
            reading = Reading(place.reading)
            self.readings.append(reading)
            inner = Place(
                at, stop, reading, self.spec.get("order", "be"), indexes=[*place.indexes, k], keys=place.keys
            )
            body = {key: value for key, value in spec.items() if key not in ("at", "count", "to", "size")}
            after = self.fragment(body, inner, None if anchor is None else (*anchor, k))
            k += 1
            after = at + size if size is not None else after
            if after == at and count == "rest":
                break
            at = after
        place.reach(at)

    def anchor(self, time: Any, place: Place) -> tuple[Any, Any]:
        """(reference, step) of a relative time in nanoseconds, None where unknown."""
        ref: Any = self.arrival
        if isinstance(time["relative"], dict):
            value = self.field(time["relative"], place)[1]
            unit = UNITS[time["relative"].get("unit", time.get("unit", "s"))]
            ref = None if value is None or value is ABSENT else epoch(time["relative"]) + ns(value, unit)
        step = time.get("step", 0)
        if isinstance(step, dict):
            value = self.field(step, place)[1]
            return ref, None if value is None or value is ABSENT else value
        return ref, exact(step)

    def time(self, spec: Any, place: Place, own_record: Any) -> int | None:
        if "relative" in spec:
            ref, step, k = own_record if own_record is not None else (*self.anchor(spec, place), 0)
            if ref is None or step is None:
                return None
            shift = (spec.get("first", 0) + k) * (step * 10**9)
            return int(ref + math.floor(shift + Fraction(1, 2)))
        unit = UNITS[spec.get("unit", "s")]
        value = self.field(spec.get("ago", spec), place)[1]
        if value is ABSENT or value is None or isinstance(value, str):
            return None
        if "ago" in spec:
            return self.arrival - ns(value, unit)
        if "wrap" in spec:
            period = 1 << type_of({"as": spec["wrap"]})[1] * 8
            newest = (self.arrival + 300 * 10**9 - epoch(spec)) // unit
            return epoch(spec) + (newest - (newest - int(value)) % period) * unit
        return epoch(spec) + ns(value, unit)

    def check(self, spec: Any, place: Place) -> None:
        name, how = next((k, v) for k, v in spec.items() if k != "on_fail")
        width = int(name.strip("acdimorsuxh")[-2:]) if name[-2:].isdigit() else int(name[-1])
        at = place.resolve(how["at"])
        order = how.get("order", place.order)
        stands = int.from_bytes(self.bytes_at(at, width // 8, place), byte_order(order))
        low, high = span(how["over"]) if "over" in how else (None, None)
        low = place.base if low is None else place.resolve(int(low))
        last = at - 1 if high is None else place.resolve(int(high))
        if high is None and low > at:
            last = place.end - 1
        if low < place.base or last >= place.end:
            raise Rejected("short", max(last, 0))
        data = self.data[low : last + 1]
        init, xor, mask = how.get("init", 0), how.get("xor", 0), (1 << width) - 1
        if name.startswith("sum"):
            total = (init + sum(data)) & mask
        elif name.startswith("xor"):
            total = init
            for byte in data:
                total ^= byte
        else:
            total = crc(data, width, how["poly"], init, bool(how.get("reflect")))
        if total ^ xor != stands and "flag" not in (spec.get("on_fail"), how.get("on_fail")):
            raise Rejected("check", at)

    def select(self, name: str, spec: Any, place: Place) -> None:
        full = self.fill(name if name.startswith("_") else place.prefix + name, place, False)
        values = place.reading.values
        if full not in values:
            return
        raw = place.reading.raw.get(spec["by"], ABSENT)

        def choose(table: Any) -> Any:
            if raw is ABSENT:
                return table.get("else", ABSENT)
            return mapped(table, raw)

        value = values[full]
        factor, shift = Fraction(1), Fraction(0)
        for key in ("scale", "offset"):
            if key in spec and value is not None:
                chosen = choose(spec[key])
                if chosen is ABSENT or chosen is None:
                    value = None
                elif key == "scale":
                    factor = exact(chosen)
                else:
                    shift = exact(chosen)
        if value is not None and not isinstance(value, str) and (factor != 1 or shift != 0):
            value = float(Fraction(value) * factor + shift)
        if "name" in spec:
            del values[full]
            new = choose(spec["name"])
            if new is not ABSENT and new is not None:
                self.write(str(new), value, place)
        else:
            values[full] = value
            if name in place.local:
                place.local[name] = value


# ---------------------------------------------------------------- small things


def bare(name: str) -> str:
    return re.sub(r"\{(i{1,4}|[0-3])\s*([+-]\s*\d+)?\}|\[(\+?)\]", "", name)


def truth(value: Any) -> bool:
    return value is not None and value is not ABSENT and not isinstance(value, str) and value != 0


def several(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def normal(spec: Any, extra: tuple[str, ...]) -> Any:
    """Keys of an item or a section that are none of a fragment's are fields."""
    spec = spec or {}
    out = {key: value for key, value in spec.items() if key in PARTS}
    bare_fields = {key: value for key, value in spec.items() if key not in PARTS and key not in extra}
    if bare_fields:
        out["fields"] = {**(out.get("fields") or {}), **bare_fields}
    return out


def merge(out: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if key in ("fields", "derive", "select") and key in out:
            kept = {k: v for k, v in out[key].items() if k not in value or key != "fields"}
            out[key] = {**kept, **value}
        elif key in ("bits", "sections", "tlv", "record", "check") and key in out:
            out[key] = several(out[key]) + several(value)
        elif key == "prefix" and key in out:
            out[key] = str(value) + out[key]
        else:
            out[key] = value


def two(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) & 1 else value


def bit_span(bits: Any) -> tuple[int, int]:
    if isinstance(bits, int):
        return bits, 1
    low, high = sorted(int(end) for end in bits.split(".."))
    return low, high - low + 1


def least(entries: Any) -> int:
    total = 0
    options = ("scale", "offset", "signed", "map", "missing", "valid", "clamp", "round", "name")
    for entry in entries:
        if "list" in entry:
            total += entry["count"] * least(entry["list"]) if isinstance(entry.get("count"), int) else 0
        elif "if" not in entry and not entry.get("optional"):
            total += next(v for k, v in entry.items() if k not in options)
    return total


def byte_order(order: str) -> Any:
    return "little" if order == "le" else "big"


def type_of(spec: Any) -> tuple[str, int | None, str]:
    """(kind, bytes, order suffix)."""
    name = spec.get("as")
    if "text" in spec:
        size = type_of({"as": name})[1] if name else (1 if spec["text"] == "dec" else None)
        return "text", size, ""
    if name is None or name in ("bool", "int"):
        return "u", 1, ""
    if name.startswith("bcd"):
        return "bcd", 1, name[3:]
    if name in ("ascii", "asciihex"):
        return name, None, ""
    match = re.fullmatch(r"(u|s|f|sm)(\d+)(ws)?(le|be)?", name)
    assert match, name
    return match.group(1), int(match.group(2)) // 8, ("ws" if match.group(3) else "") + (match.group(4) or "")


def convert_bytes(data: bytes, kind: str, order: str, spec: Any) -> tuple[Any, bool]:
    if kind == "text":
        return text_of(data, spec["text"], order), False
    if kind == "bcd":
        digits = (data[::-1] if order == "le" else data).hex()
        return (int(digits) if digits.isdigit() else None), True
    if kind in ("ascii", "asciihex"):
        return ascii_number(data, kind)
    if order.startswith("ws"):
        words = [data[i : i + 2] for i in range(0, len(data), 2)]
        if order == "wsle":
            words = [pair[::-1] for pair in words]
        else:
            words = words[::-1]
        data = b"".join(words)
    elif order == "le":
        data = data[::-1]
    if kind == "f":
        value = struct.unpack({2: ">e", 4: ">f", 8: ">d"}[len(data)], data)[0]
        return (value if math.isfinite(value) else None), False
    raw, width = int.from_bytes(data, "big"), len(data) * 8
    if "bit" in spec or "bits" in spec:
        low, count = (spec["bit"], 1) if "bit" in spec else bit_span(spec["bits"])
        raw = raw >> low & ((1 << count) - 1)
        return two(raw, count) if spec.get("signed") else raw, True
    if kind == "s":
        return two(raw, width), True
    if kind == "sm":
        top = 1 << (width - 1)
        return -(raw & (top - 1)) if raw & top else raw, True
    return raw, True


def text_of(data: bytes, how: str, order: str) -> str | None:
    if how == "ascii":
        return data.split(b"\0")[0].decode("latin-1").rstrip(" \t\n\r\v\f")
    if order == "le":
        data = data[::-1]
    if how == "hex":
        return data.hex()
    if how == "dec":
        return str(int.from_bytes(data, "big"))
    digits = data.hex().split("f")[0]
    return digits if digits == "" or digits.isdigit() else None


def ascii_number(data: bytes, kind: str) -> tuple[Any, bool]:
    text = data.decode("latin-1").strip(" \t\n\r\v\f\0")
    if kind == "asciihex":
        return (float(int(text, 16)) if re.fullmatch(r"[0-9a-fA-F]+", text) else None), True
    if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        return None, True
    return float(text), bool(re.fullmatch(r"[-+]?[0-9]+", text))


def finish(spec: Any, raw: Any, integer: bool) -> Any:
    """raw -> missing -> valid -> map | (scale, offset) -> clamp -> round."""
    if "missing" in spec and fits(spec["missing"], raw):
        return None
    if "valid" in spec:
        low, high = spec["valid"]
        if (low is not None and raw < low) or (high is not None and raw > high):
            return None
    if "map" in spec:
        value = mapped(spec["map"], raw)
        return None if value is ABSENT else float(value) if isinstance(value, Fraction) else value
    if isinstance(raw, str):
        return raw
    if ("bit" in spec and spec.get("as") != "int") or spec.get("as") == "bool":
        return raw != 0
    value: Any = int(raw) if integer else raw
    if "scale" in spec or "offset" in spec:
        try:
            value = float(Fraction(raw) * exact(spec.get("scale", 1)) + exact(spec.get("offset", 0)))
        except OverflowError:
            return None
    if "clamp" in spec:
        low, high = spec["clamp"]
        value = max(value, low) if low is not None else value
        value = min(value, high) if high is not None else value
        value = float(value) if isinstance(value, Fraction) else value
    if "round" in spec:
        value = half_away(value, spec["round"])
    return value


def matches(key: str, values: list[int], widths: list[int]) -> Any:
    """For each alternative of a key that fits: how many of its tokens are wildcards."""
    options: list[int] = [0]
    for token, value, width in zip(key.split(), values, widths, strict=True):
        fit = [w for one in token.split("|") if (w := token_fits(one, value, width)) is not None]
        options = [before + w for before in options for w in fit]
    return options


def token_fits(token: str, value: int, width: int) -> int | None:
    if token == "*":
        return 1
    if ".." in token:
        low, high = token.split("..")
        top = high or "f" * (2 * width)
        return 1 if int(low or "0", 16) <= value <= int(top, 16) else None
    digits = f"{value:0{max(len(token), 2 * width)}x}"
    token = token.lower().rjust(len(digits), "0")
    return ("?" in token) * 1 if all(t in ("?", d) for t, d in zip(token, digits, strict=True)) else None


def epoch(spec: Any) -> int:
    start = spec.get("epoch", 1970)
    day = datetime.date(start, 1, 1) if isinstance(start, int) else datetime.date.fromisoformat(start)
    return (day - datetime.date(1970, 1, 1)).days * 86400 * 10**9


def ns(value: Any, unit: int) -> int:
    return value * unit if isinstance(value, int) else math.floor(value * unit + 0.5)


def crc(data: bytes, width: int, poly: int, init: int, reflect: bool) -> int:
    """Bit by bit."""
    reg = init
    for byte in data:
        byte = int(f"{byte:08b}"[::-1], 2) if reflect else byte
        for i in range(8):
            bit = (byte >> (7 - i) & 1) ^ (reg >> (width - 1) & 1)
            reg = (reg << 1) & ((1 << width) - 1)
            if bit:
                reg ^= poly
    return int(f"{reg:0{width}b}"[::-1], 2) if reflect else reg


def decode(
    spec: Any,
    payload: bytes,
    port: int | None = None,
    arrival: int = 0,
    params: dict[str, float] | None = None,
) -> dict[str, Any]:
    """What a frame gives; arrival in ns."""
    frame = Frame(spec, payload, port, arrival, params or {})
    own = Reading()
    place = Place(0, len(frame.data), own, "be")
    try:
        frame.fragment(spec, place)
    except Ignored:
        return {"readings": []}
    except Rejected as error:
        return {"reject": (error.reason, error.offset)}
    for reading in frame.readings:
        for name, text in (spec.get("derive") or {}).items():
            words = re.findall(r"`([^`]*)`|([^\W\d]\w*)", text if isinstance(text, str) else "")
            if any(a in reading.values or b in reading.values for a, b in words):
                value = evaluate(text, frame.lookup(None, reading))
                if value is not ABSENT:
                    prefix = "" if name.startswith("_") else str(spec.get("prefix", ""))
                    reading.values[prefix + name] = value
    readings = [(reading.time, reading.metrics()) for reading in frame.readings]
    if own.metrics():
        readings.insert(0, (own.time, own.metrics()))
    return {"readings": readings}
