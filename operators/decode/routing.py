"""From the address of a frame to its device and product.

Which product: the source's `product:`; else, of the products whose topics take the address, the
one that master data give the device; else, for a device of which they name none, or that they do not
know and `unknown: accept`, the only product that takes the address. A product without `topics` takes what
its devices send. A product whose payload names a device for each reading takes its topics whatever
device stands in them, unless devices.csv gives that device another product of the same topic.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from operators.batch import Address
from operators.decode.spec import DecodePlan, MasterDevice, SourceSpec
from operators.document import nearest
from operators.rejects import Reason
from operators.sparkplug import COMMANDS, PREFIX, split_topic

DEFAULT_TEMPLATE: Final = "iotlink/{env}/{hub_id}/{device_id}/{type}/{direction}/{role}/{format}"
# kinds of sources whose frames come whole: nothing stands between them
WHOLE: Final = frozenset({"files", "opcua"})
NO_HUB: Final = "nohub"
GO: Final = 0
FILTERED: Final = -1
UNREAD: Final = -2  # the payload names the device
REPORT: Final = -3  # no telemetry: the device tells of an alarm of its own
HELD: Final = -4  # its device is unknown, and the frame waits for it
PROVISION: Final = -5  # no telemetry: a device tells that it has been provisioned
MASTER: Final = -6  # no frame of a device: changes of master data
PROVISIONING: Final = "provisioning_complete"  # the role
RESUBMITTED: Final = "penstock-resubmitted"  # header of a frame that `penstock rejects resubmit` sends

PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "env": ("dev", "stg", "prd"),
    "type": ("periodic", "event", "tcp"),
    "direction": ("pub", "sub"),
    "role": ("telemetry", "alert_report", "control_request", "control_result", "provisioning_complete"),
    "format": ("json", "bin"),
}
"""What the parts of an address after DEFAULT_TEMPLATE may be."""

_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_RESUBMITTED: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,5}))?@([0-9]{1,13})")
_DEVICE_KINDS: Final = ("topic", "peer", "const", "payload", "header")
KEY: Final = "key"  # header that holds the key of a Kafka message; `device: key` reads it


class Resubmitted(NamedTuple):
    """What the header RESUBMITTED says, written `position[.index]@milliseconds`: where the frame was
    refused, which of its readings alone is meant (-1: all), and when it arrived."""

    position: int
    reading: int
    arrived_ms: int

    def text(self) -> str:
        """The header's value."""
        index = f".{self.reading}" if self.reading >= 0 else ""
        return f"{self.position}{index}@{self.arrived_ms}"


def resubmitted(headers: Iterable[tuple[str, str]]) -> Resubmitted | None:
    """What the headers of a frame say of it; None where it was never refused."""
    for name, value in headers:
        if name == RESUBMITTED and (found := _RESUBMITTED.fullmatch(value)) is not None:
            return Resubmitted(int(found[1]), int(found[2] or -1), int(found[3]))
    return None


class Route(NamedTuple):
    """What the frames of one address are. verdict: GO, FILTERED, UNREAD, REPORT, then with its `role`,
    HELD, PROVISION, MASTER, or a `Reason`, then with its `message`. productId and device_id are ""
    where not known; GO without a device: the payload names one for each reading. reading,
    arrived_ns: of a frame that is sent again (see `Resubmitted`)."""

    source: str
    verdict: int
    productId: str = ""
    device_id: str = ""
    hub_id: str = ""
    message: str = ""
    reading: int = -1
    arrived_ns: int = 0
    role: str = ""


class Template:
    """A pattern that names the parts of an address: levels between '/', each a literal text with
    `{names}`, or `+`; a last level `#` takes the rest."""

    def __init__(self, text: str) -> None:
        self.text = text
        pattern = ""
        seen: set[str] = set()
        levels = text.split("/")
        for number, level in enumerate(levels):
            slash = "/" if number else ""
            if level == "#" and number == len(levels) - 1:
                pattern += f"(?:{slash}.*)?"
                break
            pattern += slash
            if level == "+":
                pattern += "[^/]+"
                continue
            at = 0
            for match in _PLACE.finditer(level):
                name = match[1]
                pattern += re.escape(level[at : match.start()])
                pattern += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
                seen.add(name)
                at = match.end()
            pattern += re.escape(level[at:])
        self.names = frozenset(seen)
        self._match = re.compile(pattern, re.DOTALL).fullmatch

    def parts(self, topic: str) -> Mapping[str, str] | None:
        """The named parts of an address; None where it does not fit."""
        found = self._match(topic)
        return None if found is None else found.groupdict()


def template_problem(text: str, device: str) -> str | None:
    """What is wrong with a source's `topic:` template, if anything."""
    if not text:
        return "the template is empty"
    if re.search(r"[{}]", _PLACE.sub("", text)):
        return "a part is written {name}"
    if device == "topic" and "{device_id}" not in text:
        return "the template names no {device_id}; say with 'device:' where the device's name stands"
    return None


def device_problem(text: str, *, keyed: bool = False) -> str | None:
    """What is wrong with a source's `device:`, if anything. keyed: its frames may have a key."""
    kind, _, rest = text.partition(":")
    if keyed and text == KEY:
        return None
    if keyed and kind not in ("topic", "const", "payload", "header"):
        return f"'{text}' is unknown; topic, key, const:NAME, payload:PATH or header:NAME"
    if kind not in _DEVICE_KINDS or (kind in ("topic", "peer")) != (rest == "" and ":" not in text):
        return f"'{text}' is unknown; topic, peer, const:NAME, payload:PATH or header:NAME"
    if kind in ("const", "payload", "header") and not rest:
        return f"'{kind}:' says nothing; write {kind}:{'NAME' if kind != 'payload' else 'PATH'}"
    return None


def filter_problem(text: str) -> str | None:
    """What is wrong with a topic filter of a product (MQTT 3.1.1, section 4.7), if anything."""
    levels = text.split("/")
    if not text:
        return "the filter is empty"
    for number, level in enumerate(levels):
        if "#" in level and (level != "#" or number != len(levels) - 1):
            return "'#' stands alone as the last level"
        if "+" in level and level != "+":
            return "'+' stands alone in its level"
    return None


@dataclass(slots=True)
class _Level:
    below: dict[str, _Level] = field(default_factory=dict)
    here: list[int] = field(default_factory=list)
    rest: list[int] = field(default_factory=list)  # filters that end in '#' here


class TopicFilters:
    """MQTT topic filters of many products; `takers` costs by the levels of the topic."""

    def __init__(self, filters: Iterable[tuple[str, str]]) -> None:
        self._names: list[str] = []
        self._root = _Level()
        for name, text in filters:
            number = len(self._names)
            self._names.append(name)
            level = self._root
            for part in text.split("/"):
                if part == "#":
                    level.rest.append(number)
                    break
                level = level.below.setdefault(part, _Level())
            else:
                level.here.append(number)

    def takers(self, topic: str) -> tuple[str, ...]:
        """Names whose filters match, each once, in the order in which they were given."""
        found: list[int] = []
        parts = topic.split("/")
        waiting: list[tuple[_Level, int]] = [(self._root, 0)]
        while waiting:
            level, depth = waiting.pop()
            if depth or not topic.startswith("$"):
                found += level.rest
            if depth == len(parts):
                found += level.here
                continue
            if (below := level.below.get(parts[depth])) is not None:
                waiting.append((below, depth + 1))
            if (depth or not topic.startswith("$")) and (below := level.below.get("+")) is not None:
                waiting.append((below, depth + 1))
        return tuple(dict.fromkeys(self._names[number] for number in sorted(found)))


def template_of(source: SourceSpec) -> str:
    """How a source's addresses are read, as text."""
    return source.topic or ("{device_id}" if source.kind in ("files", "opcua", "kafka") else DEFAULT_TEMPLATE)


def address_parts(source: SourceSpec, template: Template, topic: str) -> Mapping[str, str]:
    """The named parts of an address of a source; none where it does not fit."""
    if source.kind == "files" and source.topic is None:
        topic = re.sub(r"\.[^./]*\Z", "", topic.rpartition("/")[2])
    if is_sparkplug(source, topic):
        found = split_topic(topic)
        if found is None or source.sparkplug is None:
            return {}
        device, hub = source.sparkplug.of(found)
        role = "control_request" if found.type in COMMANDS else "telemetry"
        return {"device_id": device, "hub_id": hub, "role": role}
    return template.parts(topic) or {}


def is_sparkplug(source: SourceSpec, topic: str) -> bool:
    """Whether an address is one of Sparkplug, whose parts no template names."""
    return source.sparkplug is not None and topic.startswith(PREFIX)


def address_hub(parts: Mapping[str, str]) -> str:
    """The hub that an address names, "" for none."""
    hub = parts.get("hub_id", "")
    return "" if hub == NO_HUB else hub


def address_device(
    source: SourceSpec, address: Address, parts: Mapping[str, str], known: Container[str]
) -> str:
    """The device that an address names, "" where it names none. known: the devices of devices.csv."""
    kind, _, rest = source.device.partition(":")
    if is_sparkplug(source, address.topic):
        return parts.get("device_id", "")
    if kind == "const":
        return rest
    if kind in ("header", KEY):
        rest = rest.lower() or KEY
        return next((text for name, text in address.headers if name.lower() == rest and text), "")
    if kind == "peer":
        peer = dict(address.headers).get("peer", "")
        return peer if peer in known else address.topic
    return parts.get("device_id", "") if kind == "topic" else ""


class DeviceReader:
    """Device and hub of the addresses of one source, for a receiver that has to know whose a frame is
    before it is decoded; says the same as `Router` does. known: the devices of devices.csv."""

    def __init__(self, source: SourceSpec, known: Container[str] = ()) -> None:
        self._source = source
        self._template = Template(template_of(source))
        self._known = known

    def __call__(self, address: Address) -> tuple[str, str]:
        """The names; "" for what the address does not say."""
        parts = address_parts(self._source, self._template, address.topic)
        return address_device(self._source, address, parts, self._known), address_hub(parts)


class Router:
    """The plant's answer to every address. devices: as master data have them now."""

    def __init__(self, plan: DecodePlan) -> None:
        self.plan = plan
        self.devices: Mapping[str, MasterDevice] = plan.routing.devices
        self._own: dict[str, MasterDevice] | None = None  # the same, once they differ from the plan's
        self.sources = {source.name: source for source in plan.routing.sources}
        self._filters = TopicFilters(
            (product.productId, text) for product in plan.products.values() for text in product.topics
        )
        self._topicless = frozenset(p.productId for p in plan.products.values() if not p.topics)
        named = {source.product for source in plan.routing.sources}
        self._open = self._topicless - named  # products that only devices.csv leads to
        self._naming = frozenset(p.productId for p in plan.products.values() if p.names_devices)
        self._templates: dict[str, Template] = {}
        self._asked: tuple[str, tuple[str, ...]] = (
            "",
            self._filters.takers(""),
        )  # the last topic, its takers

    def describe(self, name: str, device: MasterDevice) -> None:
        """Master data say this of a device from now on."""
        if self._own is None:
            self.devices = self._own = dict(self.devices)
        self._own[name] = device

    def source(self, name: str) -> SourceSpec:
        """The source of this name; one that the plant does not name is read like MQTT by default."""
        return self.sources.get(name) or SourceSpec(name)

    def template(self, source: SourceSpec) -> Template:
        """How this source's addresses are read."""
        text = template_of(source)
        if text not in self._templates:
            self._templates[text] = Template(text)
        return self._templates[text]

    def hub(self, address: Address) -> str:
        """The hub that an address names, "" for none."""
        source = self.source(address.source)
        return address_hub(address_parts(source, self.template(source), address.topic))

    def takers(self, source: SourceSpec, topic: str) -> tuple[str, ...]:
        """Products that may take a frame, before its device is known."""
        if source.product is not None:
            return (source.product,)
        if self._asked[0] != topic:  # of an address they are asked for several times
            self._asked = topic, self._filters.takers(topic)
        return self._asked[1]

    def route(self, address: Address, named: str | None = None) -> Route:
        """What the frames of an address are; `named`: the device that a payload names."""
        found = self._route(address, named)
        again = resubmitted(address.headers) if address.headers else None
        if again is None:
            return found
        return found._replace(reading=again.reading, arrived_ns=again.arrived_ms * 1_000_000)

    def _route(self, address: Address, named: str | None) -> Route:
        source = self.source(address.source)
        if source.carries == "master":
            return Route(source.name, MASTER)
        headers = dict(address.headers)
        parts = address_parts(source, self.template(source), address.topic)
        if parts.get("direction") == "sub" or parts.get("role") == "control_request":
            return Route(source.name, FILTERED, self._only(source, address.topic))
        if "resync" in headers:
            why = headers["resync"]
            if source.kind not in WHOLE:
                why = f"garbage between frames: {why}"
            return Route(source.name, Reason.resync, self._only(source, address.topic), message=why)
        if "too_large" in headers:  # a receiver kept only the beginning
            why = f"the frame has {headers['too_large']}"
            return Route(source.name, Reason.too_large, self._only(source, address.topic), message=why)
        if is_sparkplug(source, address.topic) and "malformed" in headers:  # the receiver could not read it
            device, product = parts.get("device_id", ""), self._only(source, address.topic)
            return Route(
                source.name, Reason.malformed, product, device, address_hub(parts), headers["malformed"]
            )
        device, missing = self._device(source, address, parts, named)
        hub = address_hub(parts)
        if parts.get("role") == PROVISIONING and device:
            return Route(source.name, PROVISION, self._only(source, address.topic), device, hub)
        return self._report(source, device, hub, parts.get("role", "")) or self._product(
            source, address, device, hub, missing
        )

    def _report(self, source: SourceSpec, device: str, hub: str, role: str) -> Route | None:
        """A frame of a role in which devices of its product tell of alarms; None: it is none."""
        products = self.plan.routing.reports.get(role)
        if not products or not device:
            return None
        known = self.devices.get(device)
        if known is not None:
            product = (
                source.product or known.productId or (next(iter(products)) if len(products) == 1 else "")
            )
            hub = known.hub_id or hub
        else:
            product = source.product or (next(iter(products)) if len(products) == 1 else "")
            if self.plan.routing.unknown != "accept":
                return self._unknown(source, product, device, hub)
        if product not in products:
            return None
        return Route(source.name, REPORT, product, device, hub, role=role)

    def _only(self, source: SourceSpec, topic: str) -> str:
        takers = self.takers(source, topic)
        return takers[0] if len(takers) == 1 else ""

    def _device(
        self, source: SourceSpec, address: Address, parts: Mapping[str, str], named: str | None
    ) -> tuple[str, str]:
        """The device's name; or "" and why there is none ("": the payload has to be read)."""
        kind, _, rest = source.device.partition(":")
        if is_sparkplug(source, address.topic):
            return parts.get("device_id", ""), f"'{address.topic}' is no address of a Sparkplug message"
        if kind == "payload":
            return named or "", ""
        device = address_device(source, address, parts, self.devices)
        if kind == "header":
            return device, "" if device else f"there is no header '{rest}' to name the device"
        if kind == KEY:
            return device, "" if device else "the message has no key to name the device"
        text = self.template(source).text
        if kind == "topic" and text == DEFAULT_TEMPLATE:
            for name, known in PARTS.items():
                if parts and parts[name] not in known:
                    told = f"its {name} is one of {', '.join(known)}{nearest(parts[name], known)}"
                    return "", f"'{address.topic}' does not fit '{text}': {told}"
        return device, f"'{address.topic}' does not fit '{text}', which names the device"

    def _product(self, source: SourceSpec, address: Address, device: str, hub: str, missing: str) -> Route:
        plan = self.plan
        takers = self.takers(source, address.topic)
        known = self.devices.get(device) if device else None
        naming = [name for name in takers if name in self._naming]
        if len(naming) == 1 and (known is None or known.productId in ("", naming[0]) or source.product):
            return Route(source.name, GO, naming[0], "", hub)
        if source.product is None and not takers and known is None and not self._open:
            return self._none(source, device, f"no product takes '{address.topic}'")
        if source.product is not None and source.product not in plan.products:
            return self._none(source, device, f"the plant has no product '{source.product}'")
        if not device:
            product = takers[0] if len(takers) == 1 else ""
            if not missing:
                return Route(source.name, UNREAD, product)
            if source.product is None and not takers:
                return self._none(source, device, f"no product takes '{address.topic}'")
            return Route(source.name, Reason.unknown_device, product, message=missing)
        if known is not None:
            product = source.product or known.productId
            if not product:
                return self._by_address(source, address, takers, device, known.hub_id or hub)
            if product not in plan.products:
                return self._none(source, device, f"the plant has no product '{product}'")
            if source.product is None and product not in takers and product not in self._topicless:
                why = f"'{device}' is of product '{product}', which does not take '{address.topic}'"
                return self._none(source, device, why)
            return Route(source.name, GO, product, device, known.hub_id or hub)
        if plan.routing.unknown != "accept":
            return self._unknown(source, takers[0] if len(takers) == 1 else "", device, hub)
        return self._by_address(source, address, takers, device, hub)

    def _by_address(
        self, source: SourceSpec, address: Address, takers: tuple[str, ...], device: str, hub: str
    ) -> Route:
        """A device of which master data name no product is of the one that its address gives."""
        if len(takers) == 1:
            return Route(source.name, GO, takers[0], device, hub)
        if not takers:
            return self._none(source, device, f"no product takes '{address.topic}'")
        why = (
            f"{' and '.join(takers)} take '{address.topic}', and devices.csv does not say which '{device}' is"
        )
        return self._none(source, device, why)

    def _unknown(self, source: SourceSpec, product: str, device: str, hub: str) -> Route:
        """A device that master data do not know."""
        verdict = HELD if self.plan.routing.unknown == "hold" else Reason.unknown_device
        why = f"'{device}' is not in devices.csv"
        return Route(source.name, verdict, product, device, hub, why)

    @staticmethod
    def _none(source: SourceSpec, device: str, why: str) -> Route:
        return Route(source.name, Reason.no_product, device_id=device, message=why)
