"""The contract of a product the plain way: one reading at a time, dicts and loops.

A reading is a dict: device, frame (ordinal), ts, ingest (ns), flags (a set of names), values:
{metric: value} where a value is a number, bool, text, None (null), or `WRONG` (another type).
"""

from __future__ import annotations

import math

WRONG = object()
RANK = {"type": 0, "required": 1, "range": 2, "step": 3, "values": 4}


class Device:
    def __init__(self):
        self.newest = None
        self.run = []
        self.frames = []
        self.previous = {}


def judge(readings, metrics, times, retired):
    """Yields (verdict, metric, qualities, values, ts, flags); verdict: accepted, filtered or a
    reason. metrics: {name: dict of type, range, max_step, values, required, on_breach}; times:
    dict of max_future, max_age, live_within, on_breach."""
    devices = {}
    frames = {}
    for reading in readings:
        frames.setdefault((reading["frame"], reading["device"]), []).append(reading)
    shown = {key: frame_identity(rows) for key, rows in frames.items()}
    verdicts = {}
    for reading in readings:
        state = devices.setdefault(reading["device"], Device())
        if reading["device"] in retired:
            yield "filtered", None, None, None, None, None
            continue
        key = (reading["frame"], reading["device"])
        if key not in verdicts:
            verdicts[key] = shown[key] in state.frames[-64:]
        if verdicts[key]:
            yield "filtered", None, None, None, None, None
            continue
        yield one(reading, metrics, times, state, shown[key])


def frame_identity(rows):
    """The frame's bytes, which stand for what `payload` says, and its readings' event times."""
    return rows[0]["payload"], tuple(row["ts"] for row in rows)


def one(reading, metrics, times, state, identity):
    breaches = []
    values, qualities = {}, {}
    newer = state.newest is None or reading["ts"] > state.newest
    for name, metric in metrics.items():
        action = metric.get("on_breach")
        harsh = "bad" if action == "bad" else "reject"
        if name not in reading["values"]:
            values[name], qualities[name] = None, "absent"
            if metric.get("required"):
                qualities[name] = "bad" if harsh == "bad" else "absent"
                if harsh == "reject":
                    breaches.append(("required", name))
            continue
        value = reading["values"][name]
        if value is None:
            values[name], qualities[name] = None, "bad"
            continue
        if not has_type(value, metric["type"]):
            values[name], qualities[name] = None, "bad"
            if harsh == "reject":
                breaches.append(("type", name))
            continue
        quality = "good"
        low, high = metric.get("range") or (None, None)
        bound = (
            low if low is not None and value < low else high if high is not None and value > high else None
        )
        if bound is not None:
            if action == "clamp":
                value, quality = bound, "uncertain"
            else:
                quality = "bad"
                if action == "reject":
                    breaches.append(("range", name))
        before = state.previous.get(name)
        step = metric.get("max_step")
        if (
            step is not None
            and quality != "bad"
            and newer
            and before is not None
            and abs(value - before) > step
        ):
            if action == "clamp":
                value, quality = (before + step if value > before else before - step), "uncertain"
            else:
                quality = "bad"
                if action == "reject":
                    breaches.append(("step", name))
        if metric.get("values") and quality != "bad" and value not in metric["values"]:
            quality = "bad"
            if action == "reject":
                breaches.append(("values", name))
        if quality == "good" and "time_uncertain" in reading["flags"]:
            quality = "uncertain"
        values[name], qualities[name] = value, quality
    if breaches:
        order = list(metrics)
        reason, name = min(breaches, key=lambda b: (RANK[b[0]], order.index(b[1])))
        return reason, name, None, None, None, None

    ts, flags = reading["ts"], set(reading["flags"])
    future = ts > reading["ingest"] + times["max_future"]
    past = ts < reading["ingest"] - times["max_age"] and "live_reference" not in flags
    if future or past:
        if times["on_breach"] == "reject":
            return ("timestamp_future" if future else "timestamp_past"), None, None, None, None, None
        if times["on_breach"] == "clamp":
            ts = reading["ingest"] + (times["max_future"] if future else -times["max_age"])
            flags.add("time_uncertain")
        to = "uncertain" if times["on_breach"] == "clamp" else "bad"
        qualities = {k: to if q in ("good", "uncertain") else q for k, q in qualities.items()}

    if not state.frames or state.frames[-1] is not identity:
        state.frames.append(identity)
    if ts < reading["ingest"] - times["live_within"] and "live_reference" not in flags:
        flags.add("historical")
    if state.newest is None or ts > state.newest:
        state.newest = ts
        state.run = []
        flags.add("in_order")
    elif ts < state.newest:
        state.run = [*state.run, ts] if state.run and ts > state.run[-1] else [ts]
        if len(state.run) == 3:
            state.newest = ts
            state.run = []
            flags |= {"in_order", "rebased"}
            qualities = {k: "uncertain" if q == "good" else q for k, q in qualities.items()}
    if "in_order" in flags:
        for name, metric in metrics.items():
            if metric.get("max_step") is not None and qualities[name] in ("good", "uncertain"):
                state.previous[name] = values[name]
    return "accepted", None, qualities, values, ts, flags


def has_type(value, wanted):
    if value is WRONG:
        return False
    if wanted == "boolean":
        return isinstance(value, bool)
    if wanted == "string":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return wanted == "number" or math.floor(value) == value
