"""What a plant says about decoding: products' `decode:` sections, sources and their addresses,
and the master data that routes a frame to its device and product.

`parse_decode` turns a `decode:` section into a `DecodeSpec` and tells every problem with its
place; `DecodePlan` is all that the decode stage is built from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec

from operators.contract.spec import Metric
from operators.document import Node, Problems, nearest
from operators.master import MasterSpec
from operators.parameters import ParameterSpec
from operators.sparkplug import SparkplugNames
from operators.spec import DAY, MINUTE

FORMATS: Final = ("json", "csv", "binary", "msgpack", "cbor", "typed")
ENCODINGS: Final = ("raw", "hex", "base64", "base64url")
PACKED: Final = ("msgpack", "cbor")  # read as the JSON that they stand for


class DecodeSpec(msgspec.Struct, kw_only=True):
    """A decode section that has passed its checks; `plain` is the section as written, `layout` what its
    format made of it (JsonSpec, also of MessagePack and CBOR, CsvSpec, TypedSpec, or the binary layout).
    encoding: how the bytes of a binary layout are written in the frame, one of ENCODINGS. enclosed: an
    `Enclosed`, where a text is only a part of its frame, or has a check."""

    format: str
    plain: dict[str, Any]
    layout: Any = None
    encoding: str = "raw"
    enclosed: Any = None


def parse_decode(
    node: Node,
    metrics: Mapping[str, Metric],
    params: Mapping[str, float | str],
    problems: Problems,
    sources: Mapping[str, str] | None = None,
) -> DecodeSpec | None:
    """A product's `decode:` section; None if it has errors, all of which are in `problems`.

    metrics: the product's declared metrics in file order; params: its `params:`; sources: the plant's
    Python files by path.
    """
    if not node.is_map:
        problems.add(node, "a mapping is expected; write decode: {format: json}")
        return None
    if node.get("udf") is not None:
        from operators.decode.udf_spec import parse_udf

        udf = parse_udf(node, params, sources or {}, problems)
        return None if udf is None else DecodeSpec(format="udf", plain=node.plain(), layout=udf)
    kind = node.get("format")
    if kind is None:
        problems.add(node, f"'format' is missing; one of {', '.join(FORMATS)}")
        return None
    if kind.value not in FORMATS:
        known = f"; one of {', '.join(FORMATS)}"
        problems.add(kind, f"unknown format '{kind.raw}'{nearest(kind.raw, FORMATS) or known}")
        return None
    before, plain = len(problems.errors), node.plain()
    encoding = node.get("encoding")
    if kind.value == "binary" and encoding is not None and encoding.value not in ENCODINGS:
        known = f"; one of {', '.join(ENCODINGS)}"
        problems.add(
            encoding, f"unknown encoding '{encoding.raw}'{nearest(encoding.raw, ENCODINGS) or known}"
        )
    enclosed = None
    if kind.value not in ("binary", "typed"):
        from operators.decode.enclosed import parse_enclosed

        checked = node.get("binary") is None  # else the check is that of the layout in it
        enclosed = parse_enclosed(node, problems, checked=checked)
        node = _without(node, ("part", "check") if checked else ("part",))
    layout = _parse_layout(kind.value, node, metrics, params, problems)
    if len(problems.errors) > before:
        return None
    written = encoding.value if kind.value == "binary" and encoding is not None else "raw"
    return DecodeSpec(format=kind.value, plain=plain, layout=layout, encoding=written, enclosed=enclosed)


def _without(node: Node, keys: tuple[str, ...]) -> Node:
    """The same mapping without some of its keys."""
    return Node(
        {key: child for key, child in node.items() if key not in keys},
        node.file,
        node.line,
        node.column,
        node.path,
        keys={key: at for key, at in node.keys.items() if key not in keys},
    )


def _parse_layout(
    kind: str,
    node: Node,
    metrics: Mapping[str, Metric],
    params: Mapping[str, float | str],
    problems: Problems,
) -> Any:
    if kind == "json" or kind in PACKED:
        from operators.decode.json_spec import parse_json_spec

        return parse_json_spec(node, metrics, params, problems)
    if kind == "csv":
        from operators.decode.csv_spec import parse_csv_spec

        return parse_csv_spec(node, metrics, params, problems)
    if kind == "typed":
        from operators.decode.typed_spec import parse_typed_spec

        return parse_typed_spec(node, metrics, params, problems)
    from operators.decode.binary_spec import parse_binary_spec

    return parse_binary_spec(node, metrics, params, problems)


@dataclass(frozen=True, slots=True)
class ProductDecode:
    """One product as the decode stage sees it.

    metrics: (name, type) in file order, types as in `Metric.type`. params: the numeric ones of
    `params:` with their defaults; device_params: device_id -> what devices.csv puts over them.
    reject_unknown: a frame with a metric that is not declared is a reject.
    """

    productId: str
    decode: DecodeSpec
    metrics: tuple[tuple[str, str], ...]
    topics: tuple[str, ...] = ()
    params: Mapping[str, float] = field(default_factory=dict)
    device_params: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reject_unknown: bool = False

    @property
    def names_devices(self) -> bool:
        """Whether the payload names a device for each reading."""
        rows = getattr(self.decode.layout, "rows", None)
        return rows is not None and rows.device is not None


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source: how its addresses are read and what its frames are.

    device: `topic`, `peer`, `const:NAME`, `payload:PATH` or `header:NAME`. topic: the template of
    its addresses (None: the default of its kind). product: wins over topics and master data.
    live: event time is the reference; historical: all of its readings are. carries: `frames` of devices, or
    `master`: changes of master data. sparkplug: what devices
    and hubs of its Sparkplug addresses are called; other addresses of it are read as without.
    """

    name: str
    kind: str = "mqtt"
    device: str = "topic"
    topic: str | None = None
    product: str | None = None
    live: bool = False
    historical: bool = False
    sparkplug: SparkplugNames | None = None
    carries: Literal["frames", "master"] = "frames"


class MasterDevice(NamedTuple):
    """What master data say of a device; productId: "" where they leave it to its address."""

    productId: str
    hub_id: str = ""
    status: str = "in_service"


@dataclass(frozen=True, slots=True)
class ReportSpec:
    """What the payloads of one role hold for one product (`operators.decode.reports`). needs: of each
    rule the paths without which it can say nothing; one rule's suffice. max_future: nanoseconds, so far
    may its time be ahead of its arrival."""

    needs: tuple[tuple[tuple[str | int, ...], ...], ...]
    max_future: int = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class RoutingSpec:
    """From an address to a device and its product. reports: role -> productId -> what a frame of that
    role, which is no telemetry, holds. hold_for: nanoseconds that a frame waits with `unknown: hold`.
    births: whether births of Sparkplug register their devices."""

    sources: tuple[SourceSpec, ...] = ()
    devices: Mapping[str, MasterDevice] = field(default_factory=dict)
    unknown: Literal["reject", "hold", "accept"] = "reject"
    hold_for: int = 7 * DAY
    reports: Mapping[str, Mapping[str, ReportSpec]] = field(default_factory=dict)
    births: bool = False


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """devices: of a shard; frame: bytes of a frame; depth: nesting of JSON; held, held_bytes: frames of
    unknown devices that wait, and their bytes."""

    devices: int = 100_000
    frame: int = 1_000_000
    depth: int = 64
    held: int = 100_000
    held_bytes: int = 16_000_000


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """All that the decode stage is built from: `DecodeLogic(plan, devices, registry)`. products: by
    productId, in the plant's order (the order of a slice's `readings`). parameters: what an operator
    may set. master: what changes of master data are judged by."""

    products: Mapping[str, ProductDecode]
    routing: RoutingSpec = field(default_factory=RoutingSpec)
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    parameters: ParameterSpec = field(default_factory=lambda: ParameterSpec({}, {}))
    master: MasterSpec = field(default_factory=MasterSpec)
