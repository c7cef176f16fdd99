"""Plants and recordings from a seed, in the form that the oracle reads, and as files for the engine."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from random import Random
from typing import Any

from tests.oracle.rule_seeds import Seeds, duration, make_action, make_formulas, make_rules, rule_text
from tests.reference.plant_oracle_decode import SECOND, crc16_modbus
from tests.reference.plant_oracle_expressions import Tree, text_of

START = 1_772_355_600_000  # 2026-03-01T09:00:00Z
TOPIC = "iotlink/prd/{hub}/{device}/periodic/pub/telemetry/json"
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND


# -- a plant as files ----


def write_plant(folder: Path, plant: dict[str, Any]) -> None:
    """The plant folder; JSON is YAML."""
    (folder / "products").mkdir(parents=True)
    (folder / "rules").mkdir()
    head = {"plant": plant["plant"], "sources": plant["sources"], "devices": {"unknown": plant["unknown"]}}
    (folder / "plant.yaml").write_text(json.dumps(head), "utf-8")
    for product in plant["products"]:
        (folder / "products" / f"{product['productId']}.yaml").write_text(
            json.dumps(_product(product)), "utf-8"
        )
    documents = [json.dumps(rule_text(rule)) for rule in plant["rules"]]
    if documents:
        (folder / "rules" / "all.yaml").write_text("\n---\n".join(documents) + "\n", "utf-8")
    formulas = [
        {"formulaId": name, "productId": product["productId"], "formula": text_of(tree)}
        for product in plant["products"]
        for name, tree in product["formulas"].items()
    ]
    if formulas:
        (folder / "formulas").mkdir()
        text = "\n---\n".join(json.dumps(each) for each in formulas)
        (folder / "formulas" / "all.yaml").write_text(text + "\n", "utf-8")
    columns = list(dict.fromkeys(key for row in plant["devices"] for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(plant["devices"])
    (folder / "devices.csv").write_text(out.getvalue(), "utf-8")


def _product(product: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in product.items() if key != "formulas"}
    for key in ("expected_every", "live_within"):
        if key in out:
            out[key] = duration(out[key])
    if "contract" in out:
        stamp = out["contract"]["timestamp"]
        out["contract"] = {
            "timestamp": {k: duration(v) if isinstance(v, int) else v for k, v in stamp.items()}
        }
    if "derive" in out["decode"]:
        derive = {name: text_of(tree) for name, tree in out["decode"]["derive"].items()}
        out["decode"] = out["decode"] | {"derive": derive}
    out["windows"] = [_window(each) for each in out.get("windows", [])]
    if out["decode"]["format"] == "binary":
        out["decode"] = json.loads(json.dumps(out["decode"]))
    return out


def _window(window: dict[str, Any]) -> dict[str, Any]:
    out = {k: v for k, v in window.items() if k not in ("label", "every")}
    for key in ("lateness", "correct_within"):
        if key in out:
            out[key] = duration(out[key])
    return {"every": window["label"], **out}


# -- a plant from a seed ----


def make_plant(random: Random) -> dict[str, Any]:
    products = [_json_product(random, "alpha", paths=False)]
    if random.random() < 0.5:
        products.append(_json_product(random, "beta", paths=True))
    sources: dict[str, Any] = {"line1": {"kind": "mqtt", "host": "127.0.0.1", "subscribe": ["#"]}}
    if random.random() < 0.6:
        products.append(_binary_product(random))
        sources["peers"] = {
            "kind": "tcp",
            "listen": "127.0.0.1:0",
            "framing": {"kind": "length_prefix", "size": 2},
            "device": "peer",
            "product": "gamma",
        }
    devices = []
    for product in products:
        for number in range(random.randint(1, 3)):
            name = f"{product['productId']}-{number}"
            if product["productId"] == "gamma":
                name = f"127.0.0.{11 + number}"
            row = {"device_id": name, "productId": product["productId"]}
            row["hub_id"] = random.choice(["", "hub-a", name])
            row["site_id"] = random.choice(["", "ulsan", "busan"])
            row["status"] = random.choice(["", "in_service", "maintenance"])
            row["high"] = random.choice(["", "", "60", "72.5"])
            devices.append(row)
    if random.random() < 0.3:
        devices.append({"device_id": "alpha-old", "productId": "alpha", "status": "retired"})
    for product in products:
        product["formulas"] = make_formulas(random, product)
    return {
        "plant": "seeded",
        "sources": sources,
        "products": products,
        "devices": devices,
        "rules": make_rules(random, products),
        "unknown": random.choice(["reject", "reject", "accept"]),
    }


def _json_product(random: Random, name: str, paths: bool) -> dict[str, Any]:
    metrics: dict[str, Any] = {"temp": _number(random)}
    if random.random() < 0.4:
        metrics["temp"]["required"] = True
    for other in ("rpm", "vib"):
        if random.random() < 0.7:
            metrics[other] = _number(random)
    if random.random() < 0.4:
        metrics["count"] = {"type": "integer", **({"range": [0, 50]} if random.random() < 0.5 else {})}
    if random.random() < 0.5:
        metrics["door"] = {"type": "boolean", **({"on_breach": "bad"} if random.random() < 0.3 else {})}
    if random.random() < 0.3:
        metrics["step"] = {"type": "integer", "values": [2, 5, 7]}
        if random.random() < 0.4:
            metrics["step"]["on_breach"] = random.choice(["reject", "bad"])
    if random.random() < 0.6:
        metrics["mode"] = {"type": "string", "values": ["idle", "run", "fault"]}
        if random.random() < 0.3:
            metrics["mode"]["on_breach"] = random.choice(["reject", "bad"])
        if random.random() < 0.3:
            metrics["mode"]["required"] = True
    decode: dict[str, Any] = {"format": "json"}
    if random.random() < 0.7:
        decode["timestamp"] = "device_timestamp"
    if paths:
        decode |= {"timestamp": "t.d", "hub_timestamp": "t.h", "metrics": {m: f"v.{m}" for m in metrics}}
    elif random.random() < 0.7:
        decode["metrics"] = "data.metrics"
    if random.random() < 0.25:
        decode["timestamp"] = {"path": "at.s", "unit": random.choice(["s", "us", "auto"])}
    if random.random() < 0.3:
        metrics["load"] = _number(random)
        seeds = Seeds(random, metrics, {}, False)
        second: Tree = ("metric", random.choice(seeds.numbers))
        decode["derive"] = {"load": seeds.sum_of(("metric", "temp"), second)}
    product = {"productId": name, "version": 1, "decode": decode, "metrics": metrics}
    if name == "beta":
        product["topics"] = ["iotlink/+/+/+/periodic/pub/telemetry/json"]
    elif random.random() < 0.7:
        product["topics"] = ["iotlink/+/+/+/+/pub/telemetry/json"]
    return _finish(random, product)


def _binary_product(random: Random) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "temp": {"at": 9, "as": random.choice(["s16", "s16le"]), "scale": 0.1, "missing": [0x7FFF]},
        "rpm": {"at": 11, "as": "u16"},
        "door": {"at": 13, "bit": 3},
        "vib": {"at": 14, "as": "u8", "scale": 0.25, "offset": -2},
    }
    decode = {
        "format": "binary",
        "order": "be",
        "check": {"crc16": {"poly": 0x8005, "reflect": True, "init": 0xFFFF, "at": -2, "order": "le"}},
        "cases": [
            {
                "when": {"length": 17, "byte": {0: 0x48}},
                "time": {"at": 1, "as": "u64", "epoch": 1970, "unit": "ms"},
                "fields": fields,
            },
            {"else": "reject"},
        ],
    }
    metrics = {"temp": _number(random), "rpm": _number(random), "door": {"type": "boolean"}, "vib": {}}
    return _finish(random, {"productId": "gamma", "version": 1, "decode": decode, "metrics": metrics})


def _finish(random: Random, product: dict[str, Any]) -> dict[str, Any]:
    if random.random() < 0.4:
        product["expected_every"] = random.choice([1, 2, 5, 60]) * SECOND
    if random.random() < 0.4:
        product["live_within"] = random.choice([30 * SECOND, 5 * MINUTE, HOUR])
    if random.random() < 0.8:
        product["params"] = {"high": random.choice([50, 65, 80.5])}
    if random.random() < 0.4:
        stamp: dict[str, Any] = {}
        if random.random() < 0.5:
            stamp["max_future"] = random.choice([0, 10 * SECOND, HOUR])
        if random.random() < 0.5:
            stamp["max_age"] = random.choice([MINUTE, HOUR, 2 * DAY])
        if random.random() < 0.4:
            stamp["on_breach"] = random.choice(["reject", "bad", "clamp"])
        product["contract"] = {"timestamp": stamp}
    labels = {"1m": MINUTE, "10s": 10 * SECOND, "5m": 5 * MINUTE}
    windows = []
    for label in random.sample(["1m", "10s", "5m"], random.choice([0, 1, 1, 1, 2])):
        window: dict[str, Any] = {"label": label, "every": labels[label]}
        if random.random() < 0.5:
            window["lateness"] = random.choice([0, 2, 5, 30]) * SECOND
        if random.random() < 0.5:
            window["correct_within"] = random.choice([10 * SECOND, 2 * MINUTE, HOUR])
        if random.random() < 0.6:
            every = ["count", "min", "max", "mean", "last", "std", "p50", "p95", "p99"]
            window["aggregates"] = sorted(random.sample(every, random.randint(1, 9)), key=every.index)
        if random.random() < 0.2:
            window["metrics"] = ["temp"]
        windows.append(window)
    product["windows"] = windows
    return product


def _number(random: Random) -> dict[str, Any]:
    metric: dict[str, Any] = {}
    if random.random() < 0.6:
        metric["range"] = random.choice([[0, 100], [-20, 90.5], [10, 150], [None, 88], [12.5, None]])
    if random.random() < 0.3:
        metric["max_step"] = random.choice([5, 20.5, 40])
    if random.random() < 0.5 and metric:
        metric["on_breach"] = random.choice(["reject", "bad", "clamp"])
    return metric


# -- a recording from a seed ----


def make_lines(random: Random, plant: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Recorded lines: mostly live readings of random walks, with everything that can go wrong between."""
    now = START + random.choice([0, 1, 250, 999])
    products = {each["productId"]: each for each in plant["products"]}
    rows = plant["devices"]
    walks = {row["device_id"]: random.uniform(30, 80) for row in rows}
    last = {row["device_id"]: now for row in rows}
    skew = {row["device_id"]: random.choice([0, 0, 0, -2500, 1700, -40_000]) for row in rows}
    acting = random.choice([0, 0, 0.1, 0.3, 0.7])
    with_ticks = random.random() < 0.25
    pace = random.choice([200, 1000, 1000, 5000])
    lines: list[dict[str, Any]] = []
    away: set[str] = set()
    says_connected = random.random() < 0.2
    if says_connected:
        lines += [{"connected": source, "at": now} for source in plant["sources"]]
    for _ in range(count):
        if says_connected and random.random() < 0.08:
            source = random.choice(list(plant["sources"]))
            away ^= {source}
            lines.append({"disconnected" if source in away else "connected": source, "at": now})
        here = [row for row in rows if _source(row) not in away]
        if here and random.random() < 0.02:
            row = random.choice(here)
            behind = random.choice([20_000, 90_000, 1_200_000])
            for step in range(random.randint(3, 12)):
                stamp = now - behind + step * random.choice([1000, 1000, 7000])
                product = products[row["productId"]]
                line = _frame(random, product, row, stamp, walks[row["device_id"]] + step % 5)
                lines.append({**line, "ingest_ts": now})
        before = now
        now += random.choice([0, 1, pace // 2, pace, pace, pace])
        if random.random() < 0.04:
            now += random.choice([15_000, 70_000, 400_000, 2_000_000])
        if with_ticks and lines:
            second = before // 1000 + 1
            while second * 1000 <= now:
                lines.append({"tick": second * 1000})
                second += 1 if now - second * 1000 < 5000 else 7
        if random.random() < acting:
            lines.append(make_action(random, plant, now, len(lines)))
        if not here:
            continue
        row = random.choice(here)
        name = row["device_id"]
        roll = random.random()
        stamp = now + skew[name]
        if roll < 0.06:
            stamp = last[name] - random.choice([0, 1, 700, 3000, 61_000, 130_000])
        elif roll < 0.08:
            stamp = now - random.choice([20 * 60_000, 3 * 3_600_000, 40 * 86_400_000])
        elif roll < 0.10:
            stamp = now + random.choice([9_000, 250_000, 300_000, 301_000, 10_000_000])
        elif roll < 0.12:
            skew[name] -= random.choice([5_000, 20_000])
            stamp = now + skew[name]
        last[name] = stamp
        walks[name] += random.choice([0, 0, 1.5, -1.5, 4, -4, 12.5, -12.5])
        if not 0 < walks[name] < 110:
            walks[name] = 55.0
        product = products[row["productId"]]
        line = _frame(random, product, row, stamp, walks[name])
        line["ingest_ts"] = now - (random.choice([1, 800]) if random.random() < 0.03 else 0)
        if random.random() < 0.03 and lines:
            earlier = [each for each in lines if "topic" in each and each["source"] not in away]
            line = {**random.choice(earlier[-8:]), "ingest_ts": now} if earlier else line
        if random.random() < 0.02:
            line["historical"] = True
        if random.random() < 0.01:
            line["retained"] = True
        lines.append(line)
    return lines


def _source(row: dict[str, Any]) -> str:
    return "peers" if row["productId"] == "gamma" else "line1"


def _frame(
    random: Random, product: dict[str, Any], row: dict[str, Any], stamp: int, walk: float
) -> dict[str, Any]:
    if product["decode"]["format"] == "binary":
        return {
            "source": "peers",
            "topic": row["device_id"],
            "payload_hex": _packed(random, product, stamp, walk).hex(),
        }
    hub = row.get("hub_id") or "nohub"
    line: dict[str, Any] = {"source": "line1", "topic": TOPIC.format(hub=hub, device=row["device_id"])}
    raw = {name: _value(random, metric, walk) for name, metric in product["metrics"].items()}
    derived = product["decode"].get("derive", ())
    values = {name: value for name, value in raw.items() if value is not GONE and name not in derived}
    if random.random() < 0.1:
        values["extra"] = random.choice([1, "x", None, {"a": [1]}])
    body: dict[str, Any] = {}
    spec = product["decode"]
    time_path, hub_path = (
        spec.get("timestamp", "device_timestamp"),
        spec.get("hub_timestamp", "hub_timestamp"),
    )
    if random.random() < 0.9:
        _put(body, hub_path, stamp + random.choice([0, 40]))
    if isinstance(time_path, dict):
        _put(
            body, time_path["path"], {"s": stamp / 1000, "us": stamp * 1000, "auto": stamp}[time_path["unit"]]
        )
    elif random.random() < 0.95:
        _put(body, time_path, _stamp(random, stamp))
    _put(body, "v" if isinstance(spec.get("metrics"), dict) else "data.metrics", values)
    text = json.dumps(body, indent=random.choice([None, None, None, 1]))
    if random.random() < 0.05:
        text = text.replace('"run"', random.choice(['"r\\u0075n"', '"run\\n"', '"r\u00fcn"']))
    if random.random() < 0.03:
        text = text.replace('"temp":', random.choice(['"temp": 3, "temp":', '"te\\u006dp":']))
    roll = random.random()
    if roll < 0.01:
        text = text[: random.randrange(len(text))]
    elif roll < 0.02:
        text = random.choice(
            ["", "[]", "7", "null", "{}", text + "x", "[" * 70 + "]" * 70, " " * 20, "{'a': 1}"]
        )
    elif roll < 0.03:
        line["topic"] = random.choice(
            [
                "x/y",
                random.choice(
                    ["iotlink/prd/nohub/nobody/periodic/pub/telemetry/json"] * 3
                    + ["iotlink/prd/h1/x1/event/pub/telemetry/json"]
                ),
                line["topic"].replace("/pub/", "/sub/"),
                line["topic"].replace("/telemetry/", "/control_request/"),
                line["topic"].replace("/telemetry/", "/control_result/"),
                line["topic"].replace("/periodic/", "/event/"),
            ]
        )
    elif roll < 0.035:
        return {**line, "payload_hex": text.encode().replace(b'"', b'"\xff', 1).hex()}
    elif roll < 0.04:
        text = text.replace(": ", ': 1e999, "z": ', 1)
    return {**line, "payload": text}


def _stamp(random: Random, stamp: int) -> Any:
    roll = random.random()
    if roll < 0.9:
        return stamp
    if roll < 0.93:
        return stamp + 0.5
    if roll < 0.95:
        return None
    if roll < 0.99:
        from datetime import UTC, datetime, timedelta

        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=stamp)
        return (
            moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp % 1000:03d}" + random.choice(["Z", "+00:00", ""])
        )
    return random.choice(["soon", True, [1]])


GONE = object()


def _value(random: Random, metric: dict[str, Any], walk: float) -> Any:
    roll = random.random()
    if roll < 0.06:
        return GONE
    if roll < 0.09:
        return None
    if roll < 0.1:
        return random.choice(["hot", True, {"a": 1}, [2], "12", 3])
    kind = metric.get("type", "number")
    if kind == "string":
        return random.choice(["idle", "run", "run", "fault", "odd" if random.random() < 0.2 else "run"])
    if kind == "boolean":
        return random.random() < 0.5
    if kind == "integer":
        return random.choice([int(walk) % 60, 5, 2.0, 2.5 if random.random() < 0.1 else 7])
    if roll < 0.13:
        return random.choice([-300, 1e4, 250.25, -0.0, 0, 151])
    return random.choice([round(walk, 1), walk, int(walk)])


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    for part in parents:
        body = body.setdefault(part, {})
    body[leaf] = value


def _packed(random: Random, product: dict[str, Any], stamp: int, walk: float) -> bytes:
    order = "little" if product["decode"]["cases"][0]["fields"]["temp"]["as"].endswith("le") else "big"
    temp = 0x7FFF if random.random() < 0.05 else int(walk * 10) if random.random() < 0.95 else -3000
    body = bytes([0x48 if random.random() < 0.98 else 0x49]) + max(stamp, 0).to_bytes(8, "big")
    body += temp.to_bytes(2, order, signed=True) + int(walk).to_bytes(2, "big")  # type: ignore[arg-type]  # one of the two literals
    body += bytes([random.randrange(256), random.randrange(256)])
    if random.random() < 0.02:
        body += b"\x00"
    crc = crc16_modbus(body) ^ (1 if random.random() < 0.02 else 0)
    out = body + crc.to_bytes(2, "little")
    return out if random.random() < 0.98 else out[: random.randrange(len(out))]
