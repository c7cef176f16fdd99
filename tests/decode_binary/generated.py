"""Layouts made at random (as JSON, which is YAML) and frames for them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

TYPES = (
    *("u8", "s8", "u16", "s16le", "u24", "s24le", "u32", "s32le", "u40le", "s48", "u56", "u64", "s64le"),
    *(
        "f16",
        "f32",
        "f32le",
        "f64",
        "sm8",
        "sm16",
        "sm24le",
        "sm32",
        "u32ws",
        "u32wsle",
        "s48ws",
        "bcd",
        "bool",
    ),
)
SCALES = (0.1, 0.5, 10, 0.01, "165/65536", 0.001, -2, 1.25e-7, 0.1234567890123456789)
OFFSETS = (-40, 0.5, 100, -0.01)
NAMES = ("a", "b", "c", "d", "e", "f", "g", "h", "_m", "_n")


class Maker:
    """Draws parts of a layout; knows the names written so far, for expressions."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.names: list[str] = []
        self.left = 26

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def maybe(self, one_in: int = 3) -> bool:
        return bool(self.draw(st.integers(0, one_in - 1)) == 0)

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def name(self, repeated: bool = False) -> str:
        name = self.pick(*NAMES)
        if repeated and self.maybe(2):
            name += self.pick("{i}", "{i+1}", "{ii}", "[+].v", "[].w")
        self.names.append(name)
        return str(name)

    def expression(self, depth: int = 2) -> str:
        if depth == 0 or self.maybe(4):
            if self.names and self.maybe(2):
                return "`" + self.pick(*self.names) + "`"
            return str(self.pick("0", "1", "2.5", "frame.length", "7", "frame.port", "param.k"))
        a, b = self.expression(depth - 1), self.expression(depth - 1)
        return str(
            self.pick(
                f"({a} + {b})", f"({a} - {b})", f"({a} * {b})", f"({a} / {b})", f"({a} % {b})",
                f"if({a} > {b}, {a}, {b})", f"default({a}, {b})", f"round({a}, 1)", f"bitand({a}, {b})",
                f"({a} < {b} and {b} < 100)",
                f"({a} == {b} or not ({a} > 3))",
                f"min({a}, {b})", f"max({a}, {b})", f"clamp({a}, 0, 10)", f"shr({a}, 2)",
                f"popcount({a})", f"floor({a})",
                f"abs({a})", f"sqrt({a})", f"({a} == null)", f"shl({a}, 3)", f"({a}) ** 2",
                f"if({a} == 'on', 1, 2)",
            )
        )  # fmt: skip

    def test(self) -> Any:
        return self.pick(0, [1, 2], "3..9", ["..0", "250.."], 255, [0x7FFF, "10.."])

    def source(self, spec: dict[str, Any]) -> dict[str, Any]:
        kind = self.number(0, 9)
        if kind <= 3:
            spec["at"] = self.number(0, 12)
        elif kind == 4:
            spec["at"] = -self.number(1, 6)
        elif kind == 5:
            spec["at"] = "same"
        elif kind == 6 and self.names:
            spec["at"] = self.expression(1)
        return spec

    def field(self, keys: int = 0) -> dict[str, Any]:
        kind = self.number(0, 13)
        if kind == 0:
            return {"value": self.pick(5, 1.5, True, "on", None)}
        if kind == 1 and keys:
            return {"key": self.number(0, keys - 1)}
        if kind == 2:
            spec = self.source({"text": self.pick("hex", "ascii", "dec", "bcd")})
            spec["size"] = self.pick(1, 2, 4, 9, "rest")
            if self.maybe():
                spec["map"] = {"00": "zero", "0": "none", "else": self.pick("other", 1, None)}
            return self.options(spec)
        if kind == 3:
            spec = {
                "pieces": [
                    [self.number(0, 8), self.pick("7..0", "3..0", 5)] for _ in range(self.number(1, 3))
                ]
            }
        elif kind == 4:
            spec = self.source({"bit": self.number(0, 7)})
            if self.maybe():
                spec["as"] = "int"
            if self.maybe():
                spec["map"] = {"true": "on", "false": "off"}
            return self.options(spec)
        elif kind == 5:
            spec = self.source({"bits": self.pick("7..4", "3..0", "6..2", 4)})
        elif kind == 6:
            spec = self.source({"as": "u16le", "bits": self.pick("15..4", "9..7")})
        elif kind == 7:
            spec = self.source({"as": self.pick("ascii", "asciihex"), "size": self.number(1, 5)})
        elif kind == 8:
            spec = self.source({"as": self.pick("bcd", "bcdle"), "size": self.number(1, 8)})
        else:
            spec = self.source({"as": self.pick(*TYPES)})
            if spec["as"] == "bool":
                return self.options(spec)
        if ("bits" in spec or "pieces" in spec) and self.maybe():
            spec["signed"] = True
        return self.options(self.values(spec))

    def values(self, spec: dict[str, Any]) -> dict[str, Any]:
        if self.maybe(4):
            spec["missing"] = self.test()
        if self.maybe(6):
            spec["valid"] = [self.pick(-5, 0, None), self.pick(90, 2000, None)]
        if self.maybe(5):
            spec["map"] = {"0": "idle", "1": True, "2..9": 7.5, "10..": None, **self.pick({}, {"else": "x"})}
        else:
            if self.maybe(2):
                spec["scale"] = self.pick(*SCALES)
            if self.maybe(3):
                spec["offset"] = self.pick(*OFFSETS)
            if self.maybe(5):
                spec["clamp"] = [self.pick(0, -10.5, None), self.pick(50, 1.25, None)]
                if spec["clamp"][0] == 0 and spec["clamp"][1] is None:
                    spec["clamp"] = [0, 100]
            if self.maybe(5):
                spec["round"] = self.pick(0, 1, 2)
        return spec

    def options(self, spec: dict[str, Any]) -> dict[str, Any]:
        if self.maybe(3):
            spec["optional"] = True
        if self.names and self.maybe(6):
            spec["if"] = self.expression(1)
        if self.maybe(6):
            spec["order"] = self.pick("le", "be")
        return spec

    def fields(self, keys: int, repeated: bool) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for _ in range(self.number(1, 3)):
            one = self.field(keys)
            out[self.name(repeated)] = one
        return out

    def when(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if self.maybe(3):
            out["port"] = self.pick(1, [2, "5.."], "0..3")
        if self.maybe(4):
            out["length"] = self.pick("4..", [10, 11], {"multiple": 2, "plus": 1}, "..20")
        if self.maybe(3):
            out["byte"] = {str(self.number(-2, 3)): self.test()}
        if self.maybe(4):
            out["mask"] = {str(self.number(0, 2)): self.pick([0x0F, 1, 2, 3], [0x80, 0], [1, 1])}
        if self.names and self.maybe(4):
            out["if"] = self.expression(1)
        return out

    def count(self) -> Any:
        kind = self.number(0, 3)
        if kind == 0:
            return self.number(0, 3)
        if kind == 1:
            return "rest"
        if kind == 2 and self.names:
            return f"min({self.expression(1)}, 4)"
        return {"at": self.number(0, 3), "bits": "1..0"}

    def bit_list(self, depth: int) -> list[Any]:
        out: list[Any] = []
        for _ in range(self.number(1, 4)):
            kind = self.number(0, 7)
            if kind == 0:
                out.append({"skip": self.number(1, 9)})
            elif kind == 1 and depth:
                count = self.count()
                out.append(
                    {"count": 2 if isinstance(count, dict) else count, "list": self.bit_list(depth - 1)}
                )
            else:
                entry: dict[str, Any] = {}
                name = self.name(depth == 0)
                if self.maybe(4):
                    entry |= {"name": name, "width": self.number(1, 64)}
                else:
                    entry[name] = self.pick(1, 3, 4, 8, 11, 16, 33)
                if self.maybe(4):
                    entry["signed"] = True
                if self.maybe(4):
                    entry["optional"] = True
                if len(self.names) > 1 and self.maybe(6):
                    entry["if"] = self.expression(1)
                out.append(self.values(entry))
        return out

    def fragment(
        self, depth: int, keys: int = 0, repeated: bool = False, records: bool = True
    ) -> dict[str, Any]:
        self.left -= 1
        out: dict[str, Any] = {}
        if self.maybe(6):
            out["order"] = self.pick("le", "be")
        if self.maybe(8):
            out["prefix"] = "p."
        if self.maybe(6):
            out["time"] = self.time()
        if not self.maybe(4):
            out["fields"] = self.fields(keys, repeated)
        if self.left > 0 and depth:
            kind = self.number(0, 7)
            if kind == 0:
                out["bits"] = self.bits()
            elif kind == 1:
                out["sections"] = self.sections(depth - 1, keys)
            elif kind <= 3:
                out["tlv"] = self.tlv(depth - 1)
            elif kind == 4:
                out["cases"] = [
                    {"when": self.when(), **self.fragment(depth - 1, keys, repeated)}
                    for _ in range(self.number(1, 2))
                ] + [{"else": self.pick("reject", "ignore", {}, {}, {})}]
            elif kind == 5 and records:
                out["record"] = "log"
        if self.maybe(4):
            out["derive"] = {self.name(repeated): self.expression() for _ in range(self.number(1, 2))}
        if self.maybe(8):
            out["skip"] = self.number(1, 2)
        return out

    def bits(self) -> dict[str, Any]:
        out: dict[str, Any] = {"list": self.bit_list(1)}
        if self.maybe(2):
            out["from"] = self.number(0, 6)
        if self.maybe(2):
            out["order"] = self.pick("msb", "lsb")
        return out

    def sections(self, depth: int, keys: int) -> dict[str, Any]:
        out: dict[str, Any] = {"mask": {"at": self.number(0, 2), "as": self.pick("u8", "u16le")}, "list": []}
        if self.maybe(2):
            out["from"] = self.number(0, 4)
        if self.maybe(5):
            out["to"] = -1
        for bit in range(self.number(1, 3)):
            entry: dict[str, Any] = {}
            if not self.maybe(3):
                entry["bit"] = bit
            if self.maybe(4):
                entry["when"] = self.when()
            repeated = self.maybe(3)
            if repeated:
                entry["count"] = self.count()
            entry |= self.fragment(depth, keys, repeated)
            if self.maybe(4):
                entry["size"] = self.number(1, 5)
            out["list"].append(entry)
        return out

    def tlv(self, depth: int) -> dict[str, Any]:
        parts = self.number(1, 2)
        out: dict[str, Any] = {
            "key": ["u8", "u8"][:parts],
            "unknown": self.pick("stop", "reject", "resync"),
            "repeated": self.pick("last", "last", "first", "reject", "list"),
            "short": self.pick("reject", "stop"),
        }
        if self.maybe(3):
            out["length"] = "u8"
            out["unknown"] = self.pick("stop", "reject", "resync", "skip")
        if self.maybe(2):
            out["from"] = self.number(0, 4)
        if self.maybe(6):
            out["to"] = -2
        items: dict[str, Any] = {}
        for _ in range(self.number(1, 3)):
            tokens = [self.pick("01", "02", "0?", "*", "03..20", "01|04", "?1") for _ in range(parts)]
            body = self.fragment(depth, parts, True)
            if self.maybe(5):
                body["size"] = self.number(1, 4)
            items[" ".join(tokens)] = body
        out["items"] = items
        return out

    def time(self) -> dict[str, Any]:
        kind = self.number(0, 4)
        if kind == 0:
            return {"at": self.number(0, 5), "as": self.pick("u32", "u32le"), "epoch": self.pick(1970, 2000)}
        if kind == 1:
            return {"at": 0, "as": "u16", "unit": self.pick("s", "min"), "wrap": "u16", "epoch": "2020-02-01"}
        if kind == 2:
            return {"ago": {"at": 1, "as": "u16", "missing": 0}, "unit": self.pick("s", "min", "h")}
        if kind == 3:
            return {
                "relative": "arrival",
                "step": self.pick(-600, 0.5, {"at": 0, "bits": "7..4", "scale": -60}),
            }
        return {"relative": {"at": 0, "as": "u32", "epoch": 2000}, "step": -15, "first": self.pick(0, 1)}

    def record(self) -> dict[str, Any]:
        out: dict[str, Any] = {"count": self.count()}
        if self.maybe(2):
            out["at"] = self.number(0, 5)
        if self.maybe(2):
            out["size"] = self.number(1, 5)
        return out | self.fragment(1, 0, True, records=False)


@st.composite
def layouts(draw: Any) -> str:
    """The text of a layout."""
    make = Maker(draw)
    out: dict[str, Any] = {}
    if make.maybe(6):
        out["pad"] = make.number(1, 12)
    if make.maybe(8):
        name = make.pick("crc16", "crc8", "sum8", "xor8", "crc32", "sum16")
        how: dict[str, Any] = {"at": -int(name.strip("crsumxo")) // 8}
        if name.startswith("crc"):
            how |= {"poly": make.pick(0x07, 0x1D), "reflect": make.pick(True, False)}
        out["check"] = {
            name: how | {"init": make.pick(0, 0xFF)},
            "on_fail": make.pick("flag", "flag", "reject"),
        }
    record = make.record()
    out |= make.fragment(3)
    out["records"] = {"log": record}
    return json.dumps(out)


FRAMES = st.one_of(
    st.binary(max_size=24),
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 0x11, 0x30, 0x39, 0x80, 0xFF]), max_size=30).map(bytes),
)
