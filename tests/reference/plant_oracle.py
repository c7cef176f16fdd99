"""The whole plant computed the plain way: a plant as dicts and recorded lines in, alarms, windows, rejects,
state, summary and telemetry out. One reading at a time, dicts and Python numbers, written from FORMATS.md,
DESIGN.md, DECODE.md and docs/decisions alone; it imports nothing of the engine.

Durations are nanoseconds, like all times. What the text leaves to a hash (`id`, `alarm_id`,
`rule_version`) is not computed; `alarm` in an event is the number of its occurrence instead."""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime, timedelta
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
from tests.reference.plant_oracle_expressions import Tree, metrics_of, moved, text_of, value_of

GOOD, UNCERTAIN, BAD, ABSENT = "good", "uncertain", "bad", "absent"
WORST = {GOOD: 0, UNCERTAIN: 1, BAD: 2, ABSENT: 3}
MINUTE, DAY = 60 * SECOND, 86400 * SECOND
GRACE = SECOND
TEMPLATE = ("iotlink", "env", "hub_id", "device_id", "type", "direction", "role", "format")


def time_text(ns: int) -> str:
    """`2026-03-01T09:00:00.000Z`, cut down to the millisecond."""
    stamp = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ns // MS)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"


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

    def __init__(self, row: dict[str, str], product: dict[str, Any], rules: list[dict[str, Any]]) -> None:
        self.row, self.product = row, product
        self.name = row["device_id"]
        self.newest: int | None = None
        self.newest_ingest = 0
        self.run = 0
        self.run_ts = 0
        self.recent: deque[Any] = deque(maxlen=64)
        self.step: dict[str, float] = {}
        self.held: dict[str, tuple[Any, int, str]] = {}
        self.last: tuple[int, int] | None = None  # position and ingest time of the last reading for rules
        self.live = (0, 0)  # event and ingest time of that reading
        self.alarms = [Alarm(self, rule) for rule in rules]
        self.windows: dict[tuple[int, int], Window] = {}
        self.state: dict[str, dict[str, Any]] = {}
        self.ticked = 0

    def param(self, name: str) -> Any:
        """A column of devices.csv overrides the product's default."""
        cell = self.row.get(name, "")
        if cell != "":
            return float(cell)
        default = self.product.get("params", {}).get(name)
        return None if default is None else float(default)


class Alarm:
    """One rule on one device."""

    def __init__(self, device: Device, rule: dict[str, Any]) -> None:
        self.device, self.rule = device, rule
        condition = rule["condition"]
        self.clear: Tree = rule.get("clear_condition") or ("not", moved(condition, rule.get("deadband", 0.0)))
        self.shown = list(dict.fromkeys(metrics_of(condition)))
        self.metrics = {*self.shown, *metrics_of(self.clear)}
        self.state = "idle"
        self.since = self.paused = 0
        self.paused_at: int | None = None
        self.onset = 0
        self.open = False  # an occurrence that is not closed yet
        self.occurrence = 0
        self.evidence: tuple[dict[str, Any], str] = ({}, ABSENT)
        self.all_values: dict[str, Any] = {}
        self.at_position: Counter[int] = Counter()
        self.required = rule["severity"] != "info" and (
            rule.get(
                "acknowledge", "required" if rule["severity"] in ("critical", "high", "medium") else "none"
            )
            == "required"
        )

    @property
    def due(self) -> int | None:
        if self.state not in ("rising", "falling") or self.paused_at is not None:
            return None
        delay = self.rule.get("on_delay" if self.state == "rising" else "off_delay", 0)
        return int(self.since + delay + self.paused)


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

    def __init__(self, plant: dict[str, Any]) -> None:
        self.plant = plant
        self.products = {each["productId"]: each for each in plant["products"]}
        self.devices: dict[str, Device] = {}
        for row in plant["devices"]:
            product = self.products[row["productId"]]
            rules = [r for r in plant["rules"] if row["productId"] in _list(r["productId"])]
            self.devices[row["device_id"]] = Device(row, product, rules)
        self.alarms: list[dict[str, Any]] = []
        self.windows: list[tuple[Any, dict[str, Any]]] = []
        self.rejects: list[dict[str, Any]] = []
        self.telemetry: list[dict[str, Any]] = []
        self.frames = dict.fromkeys(("in", "decoded", "rejected", "filtered", "held"), 0)
        self.readings = dict.fromkeys(("decoded", "accepted", "late", "rejected", "filtered"), 0)

    # -- recorded input ----

    def run(self, lines: list[dict[str, Any]], close: bool = False) -> Oracle:
        """Lines of recorded input in order; `close` moves time past all that is open at the end."""
        has_ticks = any("tick" in line for line in lines)
        ingest = position = 0
        for line in lines:
            if "tick" in line:
                self.tick(line["tick"] * MS)
            if "ingest_ts" not in line:
                continue
            before, ingest = ingest, max(ingest, line["ingest_ts"] * MS)
            if not has_ticks and before and ingest // SECOND > before // SECOND:
                self.tick(ingest // SECOND * SECOND)
            self.frame(Frame(line, ingest, position))
            position += 1
        if close:
            self.tick(ingest + 366 * DAY)
        self.alarms.sort(key=lambda e: (e["position"], e["device_id"], e["ruleId"], e["sequence"]))
        self.windows.sort(key=lambda each: each[0])
        self.rejects.sort(key=lambda e: (e["position"], e["device_id"] or "", e["index"]))
        return self

    def tick(self, now: int) -> None:
        """Timers find themselves over by the device's clock."""
        for device in self.devices.values():
            if device.newest is None:
                continue
            clock = device.newest + now - device.newest_ingest
            for alarm in device.alarms:
                if alarm.due is not None and device.live[0] + now - device.live[1] >= alarm.due + GRACE:
                    self.delay_over(alarm)
            self.close_windows(device, clock - SECOND)

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
            rules = [r for r in self.plant["rules"] if named[0] in _list(r["productId"])]
            device = self.devices[name] = Device(row, self.products[named[0]], rules)
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
        if reading.in_order and not reading.historical:
            self.rules(reading)
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
        device.run = 0
        device.newest, device.newest_ingest = reading.ts, reading.ingest

    # -- rules ----

    def rules(self, reading: Reading) -> None:
        device = reading.device
        for alarm in device.alarms:
            if reading.rebased:
                alarm.paused_at, alarm.paused = None, 0
                alarm.state = {"rising": "idle", "falling": "active"}.get(alarm.state, alarm.state)
            elif alarm.due is not None and alarm.due <= reading.ts:
                self.delay_over(alarm)
        if reading.rebased:
            device.held = {n: (v, min(t, reading.ts), q) for n, (v, t, q) in device.held.items()}
        for name, (value, quality) in reading.values.items():
            device.held[name] = (value if quality != BAD else None, reading.ts, quality)
        device.last = (reading.position, reading.ingest)
        device.live = (reading.ts, reading.ingest)
        stale_after = device.product.get("expected_every")

        def look(kind: str, name: str) -> Any:
            if kind == "param":
                return device.param(name)
            value, ts, _ = device.held.get(name, (None, 0, ABSENT))
            stale = stale_after is not None and reading.ts - ts > 3 * stale_after
            return None if stale else value

        for alarm in device.alarms:
            shown = {name: look("metric", name) for name in alarm.shown}
            qualities = [
                ABSENT
                if name not in device.held
                else device.held[name][2]
                if shown[name] is not None or device.held[name][2] == BAD
                else ABSENT
                for name in alarm.shown
            ]
            alarm.all_values = {"temp": look("metric", "temp")}
            alarm.evidence = (shown, max(qualities, key=WORST.__getitem__))
            if not alarm.metrics & reading.values.keys():
                continue
            self.apply(
                alarm, reading.ts, value_of(alarm.rule["condition"], look), value_of(alarm.clear, look)
            )

    def apply(self, alarm: Alarm, ts: int, condition: bool | None, clear: bool | None) -> None:
        """One reading on one rule."""
        if alarm.state in ("idle", "rising"):
            start, stop, delay, waiting = condition, condition is False, "on_delay", "rising"
        else:
            start, stop, delay, waiting = clear, clear is False, "off_delay", "falling"
        rest = "idle" if waiting == "rising" else "active"
        if alarm.state == waiting:
            if start is None:
                alarm.paused_at = ts if alarm.paused_at is None else alarm.paused_at
                return
            if alarm.paused_at is not None:
                alarm.paused += ts - alarm.paused_at
                alarm.paused_at = None
            if stop:
                alarm.state = rest
        elif start is True:
            alarm.state, alarm.since, alarm.paused, alarm.paused_at = waiting, ts, 0, None
            if not alarm.rule.get(delay):
                self.delay_over(alarm)

    def delay_over(self, alarm: Alarm) -> None:
        """Raised or cleared, at the moment that is due."""
        due = alarm.due
        assert due is not None
        if alarm.state == "rising":
            if alarm.open:
                self.event(alarm, "closed", due)
            alarm.state, alarm.open, alarm.onset = "active", True, alarm.since
            alarm.occurrence += 1
            self.event(alarm, "raised", due)
            return
        alarm.state = "idle"
        self.event(alarm, "cleared", due)
        if not alarm.required:
            alarm.open = False
            self.event(alarm, "closed", due)

    def event(self, alarm: Alarm, transition: str, event_time: int) -> None:
        device, rule = alarm.device, alarm.rule
        assert device.last is not None
        position, ingest = device.last
        number = alarm.at_position[position]
        alarm.at_position[position] += 1
        values, quality = alarm.evidence
        condition = text_of(rule["condition"])
        self.alarms.append(
            {
                "position": position,
                "sequence": f"{position * 65536 + number:020d}",
                "alarm": alarm.occurrence,
                "ruleId": rule["ruleId"],
                "productId": device.row["productId"],
                "device_id": device.name,
                "hub_id": device.row.get("hub_id") or None,
                "site_id": device.row.get("site_id") or None,
                "customer_id": device.row.get("customer_id") or None,
                "transition": transition,
                "severity": rule["severity"],
                "onset_time": time_text(alarm.onset),
                "event_time": time_text(event_time),
                "ingest_time": time_text(ingest),
                "actor": None,
                "comment": None,
                "state": {
                    "active": alarm.state == "active" and transition == "raised",
                    "acknowledged": not alarm.required,
                    "latched": False,
                    "shelved_until": None,
                    "suppressed": False,
                    "out_of_service": False,
                },
                "evidence": {
                    "expression": condition,
                    "values": dict(values),
                    "quality": quality,
                    "position": position,
                },
                "message": self.message(alarm, transition, condition),
            }
        )

    def message(self, alarm: Alarm, transition: str, condition: str) -> str:
        device, rule = alarm.device, alarm.rule
        text: str = rule.get("message", "{ruleId}: {condition}")
        temp, high = alarm.all_values.get("temp"), device.param("high")
        for hole, value in {
            "{{{transition}}}": "{" + transition + "}",
            "{device_id}": device.name,
            "{ruleId}": rule["ruleId"],
            "{severity}": rule["severity"],
            "{condition}": condition,
            "{site_id}": device.row.get("site_id") or "unknown",
            "{metrics.temp}": _plain(temp),
            "{temp:.1f}": "unknown" if temp is None else f"{temp:.1f}",
            "{param.high}": _plain(high),
        }.items():
            text = text.replace(hole, value)
        return text

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
            mine = [key for key in device.windows if key[0] == number]
            span = spec.get("lateness", 0) + spec.get("correct_within", 0)
            if (number, start) not in device.windows and len(mine) == 2 * (-(-span // spec["every"]) + 1):
                oldest = min(mine)
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
        transitions = Counter(event["transition"] for event in self.alarms)
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


def _plain(value: float | None) -> str:
    """A number in a message: a whole one has no fraction."""
    return "unknown" if value is None else str(int(value)) if value == int(value) else repr(value)


def sum_in_order(values: list[float]) -> float:
    """Left to right, as doubles; `sum` of newer Pythons compensates."""
    total = 0.0
    for value in values:
        total += value
    return total


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _matches(pattern: str, parts: list[str]) -> bool:
    wanted = pattern.split("/")
    if wanted[-1] == "#":
        wanted, parts = wanted[:-1], parts[: len(wanted) - 1]
    return len(wanted) == len(parts) and all(w in ("+", p) for w, p in zip(wanted, parts, strict=True))
