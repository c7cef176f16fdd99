"""The whole plant computed the plain way: a plant as dicts and recorded lines in, alarms, windows, rejects,
state, summary and telemetry out. One reading at a time, dicts and Python numbers, written from FORMATS.md,
DESIGN.md, DECODE.md and docs/decisions alone; it imports nothing of the engine.

Durations are nanoseconds, like all times. What the text leaves to a hash (`id`, `alarm_id`,
`rule_version`) is not computed; `alarm` in an event is the number of its occurrence instead."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from fractions import Fraction
from math import inf, sqrt
from typing import Any

from tests.reference.plant_oracle_decode import (
    MS,
    SECOND,
    TOO_LARGE,
    WRONG,
    Refused,
    decode_binary,
    decode_json,
)
from tests.reference.plant_oracle_expressions import Past
from tests.reference.plant_oracle_kinds import Absence, DeviceClock, Group, Sequence, Threshold
from tests.reference.plant_oracle_rules import GRACE, Book, Place, Subject, time_text
from tests.reference.windows import is_out, with_window

GOOD, UNCERTAIN, BAD, ABSENT = "good", "uncertain", "bad", "absent"
WORST = {GOOD: 0, UNCERTAIN: 1, BAD: 2, ABSENT: 3}
MINUTE, DAY = 60 * SECOND, 86400 * SECOND
TEMPLATE = ("iotlink", "env", "hub_id", "device_id", "type", "direction", "role", "format")


class Reading:
    """One reading of one device: event time, ingest time, place, and (value, quality) by metric."""

    def __init__(self, device: Device, ts: int, own: bool, frame: Frame, values: dict[str, Any]) -> None:
        self.device, self.ts, self.own = device, ts, own
        self.ingest, self.position, self.frame = frame.ingest, frame.position, frame
        self.raw = values
        self.values: dict[str, tuple[Any, str]] = {}
        self.in_order = self.rebased = self.historical = self.late = False


class Frame:
    """One recorded frame with its ingest time and position."""

    def __init__(self, line: dict[str, Any], ingest: int, position: int) -> None:
        self.source, self.topic = line["source"], line.get("topic")
        self.payload = (
            bytes.fromhex(line["payload_hex"]) if "payload_hex" in line else line["payload"].encode("utf-8")
        )
        self.retained, self.historical = line.get("retained", False), line.get("historical", False)
        self.ingest, self.position = ingest, position


class Device:
    """What is kept of one device."""

    def __init__(self, row: dict[str, str], product: dict[str, Any]) -> None:
        self.row, self.product = row, product
        self.name = row["device_id"]
        self.newest: int | None = None
        self.newest_ingest = 0
        self.run = 0
        self.run_ts = 0
        self.recent: deque[Any] = deque(maxlen=64)
        self.step: dict[str, float] = {}
        self.held: dict[str, tuple[Any, int, str]] = {}
        self.last: Place | None = None  # of the last reading for rules
        self.live = (0, 0)  # event and ingest time of that reading
        self.source = ""  # of that reading
        self.past = Past()
        self.of_past: dict[str, Any] = {}
        self.overrides: dict[str, float] = {}
        self.evaluators: list[Any] = []
        self.groups: list[Group] = []  # that count it
        self.around: list[Group] = []  # of its hub, site or product
        self.clock: DeviceClock | None = None
        self.windows: dict[tuple[int, int], Window] = {}
        self.came_out: dict[int, list[tuple[int, int]]] = {}  # runs of windows, by the window's number
        self.final: dict[int, int] = {}  # the end of what may be final of them
        self.state: dict[str, dict[str, Any]] = {}
        self.ticked = 0

    def param(self, name: str) -> Any:
        """What an operator set, else a column of devices.csv, else the product's default."""
        if name in self.overrides:
            return self.overrides[name]
        cell = self.row.get(name, "")
        if cell != "":
            return float(cell)
        default = self.product.get("params", {}).get(name)
        return None if default is None else float(default)

    def look_now(self, kind: str, name: str) -> Any:
        """A value as the newest reading for rules left it."""
        if kind == "param":
            return self.param(name)
        if kind == "device":
            return self.row.get(name) or None
        if kind == "past":
            return self.of_past.get(name)
        value, ts, _ = self.held.get(name, (None, 0, ABSENT))
        every = self.product.get("expected_every")
        return None if every is not None and self.live[0] - ts > 3 * every else value


class Window:
    """One window of one device: its values by metric, in the order of the journal."""

    def __init__(self) -> None:
        self.good: dict[str, list[tuple[float, int]]] = {}
        self.bad: Counter[str] = Counter()
        self.revision = 0
        self.open = True
        self.position = 0


class Oracle:
    """`run(lines)` fills the outputs."""

    def __init__(self, plant: dict[str, Any], known: dict[str, tuple[str, str]] | None = None) -> None:
        """known: subject and onset of the `alarm_id`s that operators name."""
        self.plant, self.known = plant, known or {}
        self.book = Book()
        self.ranked = ranked(plant["rules"])
        self.groups: list[Group] = []
        self.ingests: list[int] = []
        self.began: int | None = None
        self.away: set[str] = set()  # sources that are not connected
        self.products = {each["productId"]: each for each in plant["products"]}
        self.devices: dict[str, Device] = {}
        for row in plant["devices"]:
            self.add(Device(row, self.products[row["productId"]]))
        self.windows: list[tuple[Any, dict[str, Any]]] = []
        self.rejects: list[dict[str, Any]] = []
        self.telemetry: list[dict[str, Any]] = []
        self.frames = dict.fromkeys(("in", "decoded", "rejected", "filtered", "held"), 0)
        self.readings = dict.fromkeys(("decoded", "accepted", "late", "rejected", "filtered"), 0)

    # -- recorded input ----

    def run(self, lines: list[dict[str, Any]], close: bool = False) -> Oracle:
        """Lines of recorded input in order; `close` moves time past all that is open at the end."""
        has_ticks = any("tick" in line for line in lines)
        ingest = position = ticked = 0
        for line in lines:
            if "tick" in line:
                self.tick(line["tick"] * MS)
            if "action" in line:
                self.begin(line["at"] * MS)
                self.act(line["action"], line["at"] * MS)
            if "connected" in line or "disconnected" in line:
                self.begin(line["at"] * MS)
                self.away.discard(line.get("connected", ""))
                self.away |= {line["disconnected"]} if "disconnected" in line else set()
                for device in self.devices.values():
                    for each in device.evaluators:
                        if isinstance(each, Absence):
                            each.connection(self.away, line["at"] * MS)
            if "ingest_ts" not in line:
                continue
            ingest = max(ingest, line["ingest_ts"] * MS)
            if not has_ticks and ingest // SECOND > ticked:
                ticked = ingest // SECOND
                self.tick(ticked * SECOND)
            self.begin(ingest)
            self.ingests.append(ingest)
            self.frame(Frame(line, ingest, position))
            position += 1
        if close:
            self.tick(ingest + 366 * DAY)
        self.windows.sort(key=lambda each: each[0])
        self.rejects.sort(key=lambda e: (e["position"], e["device_id"] or "", e["index"]))
        return self

    def begin(self, now: int) -> None:
        """The journal's first entry: from here on devices that were never heard are waited for."""
        if self.began is None:
            self.began = now
            for device in self.devices.values():
                for each in device.evaluators:
                    if isinstance(each, Absence):
                        each.wait_from(now)

    def tick(self, now: int) -> None:
        """Timers find themselves over by the device's clock."""
        while timers := list(self.timers_at(now)):
            *_, over, place = min(timers, key=lambda each: each[:5])
            over(place)
        for device in self.devices.values():
            if device.newest is not None:
                self.close_windows(device, device.newest + now - device.newest_ingest - SECOND)

    def act(self, data: dict[str, Any], now: int) -> None:
        """An operator's action: on an alarm, or a parameter of a device."""
        if data["kind"] == "param":
            own = self.devices[data["device_id"]].overrides
            own.pop(data["param"], None)
            if data["value"] is not None:
                own[data["param"]] = float(data["value"])
        else:
            self.book.act(data, now, self.last_frame, self.known)

    @property
    def last_frame(self) -> Place:
        return Place(len(self.ingests) - 1, self.ingests[-1]) if self.ingests else Place(0, self.began or 0)

    # -- a frame ----

    def frame(self, frame: Frame) -> None:
        self.frames["in"] += 1
        try:
            reading = self.decode(frame)
        except Refused as refused:
            reason, device_id, product_id = refused.args
            self.frames["rejected"] += 1
            self.reject(frame, reason, device_id, product_id)
            return
        if reading is None:
            self.frames["filtered"] += 1
            return
        self.frames["decoded"] += 1
        self.readings["decoded"] += 1
        self.reading(reading)

    def decode(self, frame: Frame) -> Reading | None:
        source = self.plant["sources"][frame.source]
        parts = (frame.topic or "").split("/")
        fits = len(parts) == len(TEMPLATE) and parts[0] == TEMPLATE[0]
        address = dict(zip(TEMPLATE, parts, strict=True)) if fits else {}
        if frame.retained or address.get("direction") == "sub" or address.get("role") == "control_request":
            return None
        name = frame.topic if source.get("device") == "peer" else address.get("device_id")
        device = self.devices.get(name or "")
        if "product" in source:
            taking = [source["product"]]
        else:
            taking = [
                p["productId"]
                for p in self.products.values()
                if ("topics" not in p and name and (device is None or device.product is p))
                or any(_matches(each, parts) for each in p.get("topics", ()))
            ]
        if not taking:
            raise Refused("no_product", name, None)
        if device is None:
            named = [p for p in taking if "product" in source or "topics" in self.products[p]]
            if self.plant["unknown"] == "reject":
                raise Refused("unknown_device", name, named[0] if len(named) == 1 else None)
            if len(named) != 1 or name is None:
                raise Refused("no_product", name, None)
            row = {"device_id": name, "productId": named[0], "hub_id": address.get("hub_id", "")}
            row["hub_id"] = "" if row["hub_id"] == "nohub" else row["hub_id"]
            device = self.add(Device(row, self.products[named[0]]))
        if device.row["productId"] not in taking:
            raise Refused("no_product", name, None)
        product = device.product
        if not frame.payload:
            raise Refused("empty", name, product["productId"])
        if len(frame.payload) > TOO_LARGE:
            raise Refused("too_large", name, product["productId"])
        how = decode_json if product["decode"]["format"] == "json" else decode_binary
        try:
            ts, own, values = how(product, frame.payload, frame.ingest)
        except Refused as refused:
            raise Refused(refused.args[0], name, product["productId"]) from None
        return Reading(device, ts, own, frame, values)

    def reject(self, frame: Frame, reason: str, device_id: str | None, product_id: str | None) -> None:
        self.rejects.append(
            {
                "reason": reason,
                "source": frame.source,
                "topic": frame.topic,
                "device_id": device_id,
                "productId": product_id,
                "position": frame.position,
                "index": 0,
                "ingest_time": time_text(frame.ingest),
                "payload_hex": frame.payload.hex(),
            }
        )

    # -- the contract ----

    def reading(self, reading: Reading) -> None:
        device = reading.device
        key = (reading.ts, reading.frame.payload)
        if device.row.get("status") == "retired" or key in device.recent:
            self.readings["filtered"] += 1
            return
        reason = self.check(reading)
        if reason:
            self.readings["rejected"] += 1
            self.reject(reading.frame, reason, device.name, device.row["productId"])
            return
        device.recent.append(key)
        self.timeline(reading)
        for name, (value, quality) in reading.values.items():
            number = isinstance(value, float)
            if reading.in_order and number and quality in (GOOD, UNCERTAIN):
                device.step[name] = value
        live_within = device.product.get("live_within", 15 * MINUTE)
        reading.historical = reading.frame.historical or reading.ingest - reading.ts > live_within
        if reading.in_order:
            assert device.clock is not None
            if not reading.historical:
                self.rules(reading)
            device.clock.in_order(reading)
        self.count_in_windows(reading)
        self.keep(reading)

    def check(self, reading: Reading) -> str | None:
        """Fills `values`; the reason of the first breach that rejects."""
        device, metrics = reading.device, reading.device.product["metrics"]
        values: dict[str, tuple[Any, str]] = {}
        plain = GOOD if reading.own else UNCERTAIN
        for name, value in reading.raw.items():
            values[name] = (None, BAD) if value is None else (value, plain)
        newer = device.newest is None or reading.ts > device.newest
        for name, metric in metrics.items():
            if name in values and values[name][0] is WRONG:
                if metric.get("on_breach", "reject") != "bad":
                    return "type"
                values[name] = (None, BAD)
        for name, metric in metrics.items():
            if metric.get("required") and name not in values:
                if metric.get("on_breach", "reject") != "bad":
                    return "required"
                values[name] = (None, BAD)
        for kind in ("range", "step", "values"):
            for name, metric in metrics.items():
                value, quality = values.get(name, (None, ABSENT))
                if value is None or quality in (BAD, ABSENT):
                    continue
                breach = metric.get("on_breach", "bad")
                bounds: Any = None
                if kind == "range" and "range" in metric:
                    low, high = metric["range"]
                    bounds = (-inf if low is None else low, inf if high is None else high)
                elif kind == "step" and "max_step" in metric and newer and name in device.step:
                    before, most = device.step[name], metric["max_step"]
                    if abs(value - before) > most:
                        bounds = (before - most, before + most)
                elif kind == "values" and "values" in metric and value not in metric["values"]:
                    if breach == "reject":
                        return "values"
                    values[name] = (value, BAD)
                if bounds is None or (kind == "range" and bounds[0] <= value <= bounds[1]):
                    continue
                if breach == "reject":
                    return kind
                if breach == "bad":
                    values[name] = (value, BAD)
                else:
                    values[name] = (float(min(max(value, bounds[0]), bounds[1])), UNCERTAIN)
        stamp = device.product.get("contract", {}).get("timestamp", {})
        latest = reading.ingest + stamp.get("max_future", 5 * MINUTE)
        oldest = reading.ingest - stamp.get("max_age", 30 * DAY)
        if not oldest <= reading.ts <= latest:
            breach = stamp.get("on_breach", "reject")
            if breach == "reject":
                return "timestamp_future" if reading.ts > latest else "timestamp_past"
            worse = BAD if breach == "bad" else UNCERTAIN
            values = {n: (v, max(q, worse, key=WORST.__getitem__)) for n, (v, q) in values.items()}
            if breach == "clamp":
                reading.ts = min(max(reading.ts, oldest), latest)
        reading.values = values
        return None

    def timeline(self, reading: Reading) -> None:
        """In order, out of order, or the third of a clock that was stepped back."""
        device = reading.device
        if device.newest is None or reading.ts > device.newest:
            reading.in_order = True
        elif reading.ts == device.newest:
            return
        else:
            device.run = device.run + 1 if device.run and reading.ts > device.run_ts else 1
            device.run_ts = reading.ts
            if device.run < 3:
                return
            reading.in_order = reading.rebased = True
            reading.values = {n: (v, UNCERTAIN if q == GOOD else q) for n, (v, q) in reading.values.items()}
            for number, spec in enumerate(device.product.get("windows", ())):
                self.forget(device, number, device.newest - spec.get("lateness", 0))
                span = spec.get("lateness", 0) + spec.get("correct_within", 0)
                device.final[number] = max(device.final.get(number, 0), device.newest - span)
        device.run = 0
        device.newest, device.newest_ingest = reading.ts, reading.ingest

    # -- rules ----

    def add(self, device: Device) -> Device:
        """A device with its rules and groups."""
        self.devices[device.name] = device
        for rank, rule in enumerate(self.ranked):
            if device.row["productId"] in _list(rule["productId"]):
                self.add_rule(device, rule, rank)
        live_within = device.product.get("live_within", 15 * MINUTE)
        rule = {"ruleId": "device-clock"}
        subject = self.subject(rule, f"{device.name}/device-clock", device, device.row, "low")
        device.clock = DeviceClock(self.book, device, subject, live_within)
        return device

    def add_rule(self, device: Device, rule: dict[str, Any], rank: int) -> None:
        kind, severity = rule.get("type", "threshold"), rule["severity"]
        name = f"{device.name}/{rule['ruleId']}"
        made: list[Any] = []
        if kind == "group":
            self.join(device, rule, rank)
        elif kind == "limit":
            for limit in ("HH", "H", "LL", "L"):
                if limit not in rule["limits"]:
                    continue
                one = severity[limit] if isinstance(severity, dict) else severity
                subject = self.subject(rule, f"{name}/{limit}", device, device.row, one)
                condition = ("cmp", ">" if "H" in limit else "<", rule["of"], rule["limits"][limit])
                made.append(Threshold(self.book, device, subject, condition))
                if len(limit) == 1 and 2 * limit in rule["limits"]:
                    self.book.suppress_by(subject, self.book.subjects[f"{name}/{2 * limit}"])
        elif kind == "absence":
            if "of" in rule:
                name += f"/{rule['of']}"
            made.append(Absence(self.book, device, self.subject(rule, name, device, device.row, severity)))
        elif kind == "sequence":
            made.append(Sequence(self.book, device, self.subject(rule, name, device, device.row, severity)))
        else:
            subject = self.subject(rule, name, device, device.row, severity)
            made.append(Threshold(self.book, device, subject, rule["condition"]))
        for each in made:
            each.rank = rank
            for by in _list(rule.get("suppressed_by", [])):
                for other in [*device.evaluators, *device.around]:
                    if other.rule["ruleId"] == by:
                        self.book.suppress_by(each.subject, other.subject)
        device.evaluators += made

    def join(self, device: Device, rule: dict[str, Any], rank: int) -> None:
        """The device becomes a member of its group."""
        value = device.row.get(rule["over"], "")
        if not value:
            return
        word = {"hub_id": "hub", "site_id": "site", "productId": "product"}[rule["over"]]
        name = f"{word}:{value}/{rule['ruleId']}"
        if name not in self.book.subjects:
            row = {"productId": value if word == "product" else _list(rule["productId"])[0]}
            if word != "product":
                row[rule["over"]] = value
            group = Group(self.book, self.subject(rule, name, None, row, rule["severity"]), value)
            group.rank = rank
            self.groups.append(group)
        mine = [one for one in self.groups if one.subject.name == name]
        device.around += mine
        if (device.row.get("status") or "in_service") == "in_service":
            device.groups += mine

    def subject(
        self, rule: dict[str, Any], name: str, device: Device | None, row: dict[str, Any], severity: str
    ) -> Subject:
        return self.book.subjects.setdefault(name, Subject(rule, name, device, row, severity))

    def timers_of(self, device: Device) -> Iterator[Any]:
        """(due, device, rank, which, order, what to do) of all that runs on one device."""
        for number, each in enumerate(device.evaluators):
            if each.due is not None:
                yield each.due, device.name, each.rank, number, 0, each.over
            for due, order, over in self.book.timers(each.subject):
                yield due, device.name, each.rank, number, order, over

    def timers_at(self, now: int) -> Iterator[Any]:
        """What a tick finds over."""
        for device in self.devices.values():
            clock = device.live[0] + now - device.live[1] if device.last is not None else now
            for *timer, over in self.timers_of(device):
                each = device.evaluators[timer[3]]
                by_journal = isinstance(each, Absence) and not each.heard and timer[4] == 0
                if timer[0] + GRACE <= (now if by_journal else clock):
                    alone = by_journal or device.last is None
                    yield *timer, over, self.last_frame if alone else device.last
        for number, group in enumerate(self.groups):
            if group.due is not None and group.due + GRACE <= group.newest[0] + now - group.newest[1]:
                yield group.due, "", group.rank, number, 0, group.over, self.last_frame
            for due, order, over in self.book.timers(group.subject):
                if due + GRACE <= now:
                    yield due, "", group.rank, number, order, over, self.last_frame

    def timers_before(self, reading: Reading) -> Iterator[Any]:
        """What a reading finds over before it is applied."""
        device = reading.device
        for *timer, over in self.timers_of(device):
            each = device.evaluators[timer[3]]
            by_journal = isinstance(each, Absence) and not each.heard and timer[4] == 0
            if timer[0] <= reading.ts and not by_journal and not (reading.rebased and timer[4] != 1):
                yield *timer, over, device.last or self.frame_before(reading)
        for number, group in enumerate(device.groups):
            mine = bool(group.metrics & reading.values.keys())
            if mine and group.due is not None and group.due <= max(reading.ts, group.newest[0]):
                yield group.due, "", group.rank, number, 0, group.over, self.frame_before(reading)

    def frame_before(self, reading: Reading) -> Place:
        before = max(reading.position - 1, 0)
        return Place(before, self.ingests[before])

    def rules(self, reading: Reading) -> None:
        device = reading.device
        if reading.rebased:
            for each in device.evaluators:
                each.stepped(reading)
                steps = each.subject.steps
                each.subject.steps = [(reading.ts + step["after"], step) for _, step in steps]
        while timers := list(self.timers_before(reading)):
            *_, over, place = min(timers, key=lambda each: each[:5])
            over(place)
        if reading.rebased:
            device.held = {n: (v, min(t, reading.ts), q) for n, (v, t, q) in device.held.items()}
        for name, (value, quality) in reading.values.items():
            device.held[name] = (value if quality != BAD else None, reading.ts, quality)
        device.last = Place(reading.position, reading.ingest)
        device.live, device.source = (reading.ts, reading.ingest), reading.frame.source
        trees = [tree for each in device.evaluators for tree in each.trees()]
        device.of_past = device.past.reading(reading.ts, reading.rebased, trees, device.look_now)
        for each in device.evaluators:
            each.see(reading, device.look_now)
        for each in [*device.groups, *sorted(device.evaluators, key=lambda one: one.rank)]:
            if isinstance(each, Group) and not each.metrics & reading.values.keys():
                continue
            each.reading(reading, device.look_now)

    # -- windows ----

    def close_windows(self, device: Device, clock: int) -> None:
        for (number, start), window in sorted(device.windows.items()):
            spec = device.product["windows"][number]
            if window.open and clock - spec.get("lateness", 0) >= start + spec["every"]:
                window.open = False
                self.line(device, number, start, window)

    def count_in_windows(self, reading: Reading) -> None:
        device = reading.device
        assert device.newest is not None
        if reading.in_order:
            self.close_windows(device, device.newest)
        specs = device.product.get("windows", ())
        refused = 0
        for number, spec in enumerate(specs):
            start = reading.ts // spec["every"] * spec["every"]
            end = start + spec["every"]
            watermark = device.newest - spec.get("lateness", 0)
            self.forget(device, number, watermark)
            if end <= watermark and end + spec.get("correct_within", 0) <= watermark:
                refused += 1
                continue
            known = device.came_out.get(number, [])
            was_final = end <= device.final.get(number, 0) and is_out(known, start // spec["every"])
            if (number, start) not in device.windows and was_final:
                refused += 1
                continue
            mine = [key for key in device.windows if key[0] == number]
            span = spec.get("lateness", 0) + spec.get("correct_within", 0)
            if (number, start) not in device.windows and len(mine) == 2 * (-(-span // spec["every"]) + 1):
                oldest = min(mine)
                device.final[number] = max(device.final.get(number, 0), oldest[1] + spec["every"])
                if device.windows[oldest].open:
                    self.line(device, *oldest, device.windows[oldest])
                del device.windows[oldest]
            window = device.windows.setdefault((number, start), Window())
            window.position = reading.position
            for name, (value, quality) in reading.values.items():
                if quality == BAD:
                    window.bad[name] += 1
                elif isinstance(value, float):
                    window.good.setdefault(name, []).append((value, reading.ts))
            window.open = end > watermark
            if not window.open:
                self.line(device, number, start, window)
        reading.late = bool(specs) and refused == len(specs)
        self.readings["late" if reading.late else "accepted"] += 1

    def forget(self, device: Device, number: int, watermark: int) -> None:
        """Windows that nothing changes any more."""
        spec = device.product["windows"][number]
        for key in [k for k, window in device.windows.items() if k[0] == number and not window.open]:
            if key[1] + spec["every"] + spec.get("correct_within", 0) <= watermark:
                del device.windows[key]

    def line(self, device: Device, number: int, start: int, window: Window) -> None:
        spec = device.product["windows"][number]
        window.revision += 1
        known = device.came_out.get(number, [])
        device.came_out[number] = with_window(known, start // spec["every"])
        numeric = [n for n, m in device.product["metrics"].items() if m.get("type", "number") in NUMERIC]
        for name in spec.get("metrics", numeric):
            good, bad = window.good.get(name, []), window.bad[name]
            total = len(good) + bad
            entry: dict[str, Any] = {
                "window": spec["label"],
                "productId": device.row["productId"],
                "device_id": device.name,
                "metric": name,
                "start": time_text(start),
                "end": time_text(start + spec["every"]),
                "count": len(good),
                "good": len(good),
                "bad": bad,
                "coverage": 100 * len(good) / total if total else None,
            }
            asked = spec.get("aggregates", ["count", "min", "max", "mean", "last"])
            values = [value for value, _ in good]
            for aggregate in ("min", "max", "mean", "last", "std", "p50", "p95", "p99"):
                if aggregate in asked:
                    entry[aggregate] = _aggregate(aggregate, values, good) if good else None
            if "count" not in asked:
                del entry["count"]
            entry["revision"] = window.revision
            key = (window.position, device.name, name, window.revision, start, spec["label"])
            self.windows.append((key, entry))

    # -- state, telemetry ----

    def keep(self, reading: Reading) -> None:
        device = reading.device
        row: dict[str, Any] = {
            "_product": device.row["productId"],
            "_ts": reading.ts,
            "_ingest_ts": reading.ingest,
            "_device": device.name,
            "_seq": reading.position * 65536,
            "_historical": reading.historical,
        }
        for name, (value, quality) in reading.values.items():
            row[name], row[f"{name}__quality"] = value, quality
            if reading.in_order:
                device.state[name] = {
                    "value": value,
                    "quality": quality,
                    "time": time_text(reading.ts),
                    "position": reading.position,
                }
        self.telemetry.append(row)

    @property
    def state(self) -> dict[str, Any]:
        return {device.name: device.state for device in self.devices.values() if device.newest is not None}

    @property
    def summary(self) -> dict[str, Any]:
        transitions = Counter(event["transition"] for event in self.book.events)
        return {"frames": self.frames, "readings": self.readings, "alarms": dict(transitions)}


NUMERIC = ("number", "integer")


def _aggregate(name: str, values: list[float], good: list[tuple[float, int]]) -> Any:
    if name == "min":
        return min(values)
    if name == "max":
        return max(values)
    if name == "mean":
        return sum_in_order(values) / len(values)
    if name == "last":
        newest = max(ts for _, ts in good)
        return [value for value, ts in good if ts == newest][-1]
    exact = [Fraction(value) for value in values]
    if name == "std":
        mean = sum(exact, Fraction(0)) / len(exact)
        return sqrt(sum(((value - mean) ** 2 for value in exact), Fraction(0)) / len(exact))
    rank = Fraction(name[1:]) / 100 * (len(values) - 1)
    ordered = sorted(values)
    return (ordered[int(rank)], ordered[min(int(rank) + 1, len(values) - 1)])  # within 1 % of one of them


def sum_in_order(values: list[float]) -> float:
    """Left to right, as doubles; `sum` of newer Pythons compensates."""
    total = 0.0
    for value in values:
        total += value
    return total


def ranked(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rules, each behind those that suppress it."""
    by_name = {rule["ruleId"]: rule for rule in rules}
    order: list[dict[str, Any]] = []

    def put(rule: dict[str, Any]) -> None:
        for name in _list(rule.get("suppressed_by", [])):
            put(by_name[name])
        if rule not in order:
            order.append(rule)

    for rule in rules:
        put(rule)
    return order


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _matches(pattern: str, parts: list[str]) -> bool:
    wanted = pattern.split("/")
    if wanted[-1] == "#":
        wanted, parts = wanted[:-1], parts[: len(wanted) - 1]
    return len(wanted) == len(parts) and all(w in ("+", p) for w, p in zip(wanted, parts, strict=True))
