"""Event-time windows the plain way: every window keeps its readings, and an aggregate is worked
out from the list when the window closes.

An event is ("tick", ns) or ("row", dict): device, position, ts, ingest, in_order, values:
{metric: (value, usable)} of the metrics that the reading carries.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

SECOND = 1_000_000_000
RUNS = 6


class Device:
    def __init__(self):
        self.newest = None
        self.ingest = None
        self.windows = {}  # number -> {"rows", "open", "revision"}
        self.runs = []  # [first, stop) of the numbers that came out, rising
        self.final = None  # the end of what may be final of them


def with_window(runs, number):
    """The runs with one more window, joined where they touch; of more than RUNS the two between which the
    gap is smallest for its distance become one."""
    whole = []
    for first, stop in sorted([*runs, (number, number + 1)]):
        if whole and first <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(stop, whole[-1][1]))
        else:
            whole.append((first, stop))
    if len(whole) > RUNS:
        gaps = [(below[1], above[0]) for below, above in pairwise(whole)]
        worth = [
            (stop - first) / (1 + (first - number - 1 if first > number else number - stop))
            for first, stop in gaps
        ]
        at = worth.index(min(worth))
        whole[at : at + 2] = [(whole[at][0], whole[at + 1][1])]
    return whole


def later(time, than):
    return time if than is None else max(time, than)


def is_out(runs, number):
    return any(first <= number < stop for first, stop in runs)


def windows(events, *, length, lateness, correct_within, metrics, places, end_of_time=False):
    """Yields ("late", position) and ("closed", device, start, revision, position, {metric:
    aggregates}) in the order in which they are found. Windows that a watermark has made final are
    forgotten; of the others a device has at most 2 x places, the oldest gives way. One that came out
    and is forgotten takes no reading any more."""
    devices = {}
    if end_of_time:
        events = [*events, ("tick", 1 << 62)]
    for kind, what in events:
        if kind == "tick":
            for name, device in devices.items():
                clock = device.newest + (what - device.ingest)
                for number in sorted(device.windows):
                    window = device.windows[number]
                    if window["open"] and clock - lateness - SECOND >= (number + 1) * length:
                        yield close(name, device, number, length, metrics)
            continue
        row = what
        name, ts = row["device"], row["ts"]
        device = devices.setdefault(name, Device())
        if row["in_order"] or device.newest is None:
            if device.newest is not None:
                if ts < device.newest:
                    device.final = later(device.newest - lateness - correct_within, device.final)
                forget(device, device.newest - lateness - correct_within, length)
            device.newest, device.ingest = ts, row["ingest"]
            for number in sorted(device.windows):
                window = device.windows[number]
                if window["open"] and (number + 1) * length <= ts - lateness:
                    yield close(name, device, number, length, metrics)
        watermark = device.newest - lateness
        number = ts // length
        end = (number + 1) * length
        passed = end <= watermark
        if passed and end + correct_within <= watermark:
            yield "late", row["position"]
            continue
        forget(device, watermark - correct_within, length)
        was_final = device.final is not None and end <= device.final
        if number not in device.windows and was_final and is_out(device.runs, number):
            yield "late", row["position"]
            continue
        if number not in device.windows and len(device.windows) == 2 * places:
            other = min(device.windows)
            device.final = later((other + 1) * length, device.final)
            if device.windows[other]["open"]:
                yield close(name, device, other, length, metrics)
            del device.windows[other]
        window = device.windows.setdefault(number, {"rows": [], "open": False, "revision": 0})
        window["rows"].append(row)
        if not passed:
            window["open"] = True
        elif not window["open"]:
            yield close(name, device, number, length, metrics)


def forget(device, until, length):
    for number in list(device.windows):
        if not device.windows[number]["open"] and (number + 1) * length <= until:
            del device.windows[number]


def close(name, device, number, length, metrics):
    window = device.windows[number]
    window["open"] = False
    window["revision"] += 1
    device.runs = with_window(device.runs, number)
    rows = window["rows"]
    found = {metric: aggregate(rows, metric) for metric in metrics}
    return "closed", name, number * length, window["revision"], rows[-1]["position"], found


def aggregate(rows, metric):
    cells = [(row["ts"], *row["values"][metric]) for row in rows if metric in row["values"]]
    good = [(ts, value) for ts, value, usable in cells if usable]
    found = {"count": len(good), "bad": len(cells) - len(good)}
    names = ("min", "max", "mean", "last", "std", "p50", "p95", "p99")
    if not good:
        return found | dict.fromkeys(names)
    values = [value for _, value in good]
    total = 0.0
    mean = squares = 0.0
    for n, value in enumerate(values, 1):
        total += value
        off = value - mean
        mean += off / n
        squares += off * (value - mean)
    newest = max(ts for ts, _ in good)
    found |= {
        "min": min(values),
        "max": max(values),
        "mean": total / len(values),
        "last": [value for ts, value in good if ts == newest][-1],
        "std": math.sqrt(squares / len(values)),
    }
    for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        found[name] = sketched(values, q)
    return found


def sketched(values, q):
    """DDSketch with 1 %, at most 512 buckets in each of the stores."""
    log_gamma = math.log(1.01 / 0.99)
    stores = {1: Counter(), -1: Counter()}
    zeros = 0
    for value in values:
        if value == 0:
            zeros += 1
        else:
            stores[1 if value > 0 else -1][math.ceil(math.log(abs(value)) / log_gamma)] += 1
    line = []
    for sign in (-1, 1):
        store = stores[sign]
        floor = max(store, default=0) - 511
        kept = Counter()
        for bucket, count in store.items():
            kept[max(bucket, floor)] += count
        middle = 2.0 / (1.01 / 0.99 + 1.0)
        line += [(sign * middle * math.exp(b * log_gamma), sign * b, n) for b, n in kept.items()]
    line = sorted(line, key=lambda item: (item[0] > 0, item[1]))
    at = sum(1 for value, _, _ in line if value < 0)
    if zeros:
        line.insert(at, (0.0, 0, zeros))
    rank, below = q * (len(values) - 1), 0
    for value, _, count in line:
        below += count
        if below > rank:
            return min(max(value, min(values)), max(values))
    return line[-1][0]
