"""Rules, formulas and operators' actions from a seed, as the oracle reads them, and as a rule file."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.reference.plant_oracle_decode import MS, SECOND
from tests.reference.plant_oracle_expressions import Tree, metrics_of, moved, text_of

SEVERITIES = ["critical", "high", "medium", "low", "info"]
ACTIONS = [
    "ack", "ack", "ack", "reset", "reset", "shelve", "shelve", "unshelve",
    "suppress", "unsuppress", "out_of_service", "in_service",
]  # fmt: skip
NUMBERS = ("number", "integer")
DURATIONS = [500 * MS, SECOND, 3 * SECOND, 10 * SECOND, 60 * SECOND, 90 * SECOND]


def duration(ns: int) -> str:
    return f"{ns // SECOND}s" if ns % SECOND == 0 else f"{ns // MS}ms"


# -- as a rule file ----


def rule_text(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule as its file says it; `shown` is the oracle's own."""
    out = {"type": "threshold", **rule}
    for key in ("condition", "clear_condition", "where", "when", "of"):
        if isinstance(out.get(key), tuple):
            out[key] = text_of(out[key])
    for key in ("on_delay", "off_delay", "max_shelve", "for"):
        if key in out:
            out[key] = duration(out[key])
    if "limits" in out:
        out["limits"] = {
            key: tree[1] if tree[0] == "num" else text_of(tree) for key, tree in out["limits"].items()
        }
    if "steps" in out:
        out["steps"] = [_step(step) for step in out["steps"]]
    if "escalate" in out:
        out["escalate"] = [{**step, "after": duration(step["after"])} for step in out["escalate"]]
    if "schedule" in out:
        every = out["schedule"]
        out["schedule"] = (
            [{**one, "for": duration(one["for"])} for one in every]
            if isinstance(every, list)
            else {**every, "for": duration(every["for"])}
        )
    return out


def _step(step: dict[str, Any]) -> Any:
    text = text_of(step["condition"])
    if "within" not in step:
        return text
    return {"not" if step.get("not") else "condition": text, "within": duration(step["within"])}


# -- conditions ----


class Seeds:
    """What conditions are made of: the metrics that all products of a rule have, and their formulas."""

    def __init__(
        self, random: Random, metrics: dict[str, Any], formulas: dict[str, Tree], param: bool
    ) -> None:
        self.random, self.metrics, self.formulas, self.param = random, metrics, formulas, param
        self.numbers = [n for n, m in metrics.items() if m.get("type", "number") in NUMBERS]

    def condition(self, depth: int) -> Tree:
        random = self.random
        if depth and random.random() < 0.4:
            kind = random.choice(["and", "or", "not"])
            if kind == "not":
                return ("not", self.condition(depth - 1))
            return (kind, self.condition(depth - 1), self.condition(depth - 1))
        if random.random() < 0.15:
            return self.past_truth(depth)
        name = random.choice(list(self.metrics))
        kind = self.metrics[name].get("type", "number")
        if kind == "string":
            if random.random() < 0.2:
                return ("past", "changed", ("metric", name))
            word = random.choice(["run", "idle"])
            return ("cmp", random.choice(["==", "!="]), ("metric", name), ("text", word))
        if kind == "boolean":
            return ("metric", name)
        side = self.number(name)
        bound: Tree = ("num", float(random.choice([20, 40, 55, 60, 62.5, 75, 85])))
        if side[0] == "past":
            bound = ("num", self.past_bound(side))
        elif self.param and random.random() < 0.4:
            bound = ("param", "high")
            if random.random() < 0.4:
                bound = ("arith", "-", bound, ("num", 5.0))
        if random.random() < 0.2:
            return ("cmp", random.choice(["<", "<=", ">", ">="]), bound, side)
        return ("cmp", random.choice([">", ">", ">=", "<", "<="]), side, bound)

    def past_bound(self, side: Tree) -> float:
        name = side[1]
        if name in ("delta", "rate", "std"):
            return self.random.choice([-5.0, -0.5, 0.0, 1.0, 4.0])
        if name in ("since", "count"):
            return self.random.choice([0.0, 1.0, 3.0, 5.0, 20.0])
        return self.random.choice([40.0, 55.0, 60.0, 75.0, 120.0])

    def past_truth(self, depth: int) -> Tree:
        random = self.random
        inside = self.condition(max(depth - 1, 0))
        roll = random.random()
        if roll < 0.4:
            return ("past", "held", inside, random.choice(DURATIONS))
        if roll < 0.6:
            return ("cmp", random.choice(["<", ">", ">="]), ("past", "since", inside), ("num", 3.0))
        if roll < 0.75:
            return ("cmp", ">", ("past", "avg", inside, random.choice(DURATIONS)), ("num", 0.5))
        if roll < 0.9:
            return (
                "cmp", ">", ("past", "sum", ("past", "changed", inside), 60 * SECOND), ("num", 2.0),
            )  # fmt: skip
        return ("past", "changed", inside)

    def number(self, name: str) -> Tree:
        random = self.random
        metric: Tree = ("metric", name)
        other: Tree = ("metric", random.choice(self.numbers))
        if self.formulas and random.random() < 0.15:
            chosen = random.choice(list(self.formulas))
            return ("formula", chosen, self.formulas[chosen])
        if random.random() < 0.3:
            inside = self.sum_of(metric, other)
            if random.random() < 0.5:
                return ("past", random.choice(["rate", "delta", "prev"]), inside)
            fold = random.choice(["avg", "min", "max", "std", "sum", "count"])
            return ("past", fold, inside, random.choice(DURATIONS))
        return self.sum_of(metric, other)

    def sum_of(self, metric: Tree, other: Tree) -> Tree:
        random = self.random
        roll = random.random()
        if roll < 0.6:
            return metric
        if roll < 0.7:
            return ("arith", random.choice(["+", "-", "*"]), metric, other)
        if roll < 0.78:
            return ("arith", "/", metric, other)
        if roll < 0.84:
            return ("call", random.choice(["min", "max"]), metric, other)
        if roll < 0.9:
            return ("call", "abs", ("arith", "-", metric, ("num", 50.0)))
        if roll < 0.95:
            return ("default", metric, ("num", 70.0))
        return ("if", ("cmp", ">", metric, ("num", 50.0)), metric, other)


# -- rules ----


def make_formulas(random: Random, product: dict[str, Any]) -> dict[str, Tree]:
    """Formulas by name; one may stand in another."""
    formulas: dict[str, Tree] = {}
    for number in range(random.choice([0, 0, 1, 2])):
        seeds = Seeds(random, product["metrics"], formulas, False)
        formulas[f"f{number}"] = seeds.number("temp")
    return formulas


def make_rules(random: Random, products: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some rules of each product, and some of several."""
    rules: list[dict[str, Any]] = []
    for product in products:
        for number in range(random.randint(0, 4)):
            rules.append(_rule(random, [product], f"r{number}-{product['productId']}", rules))
    if len(products) > 1 and random.random() < 0.5:
        rules.append(_rule(random, random.sample(products, 2), "shared", rules))
    return rules


def _rule(
    random: Random, products: list[dict[str, Any]], name: str, before: list[dict[str, Any]]
) -> dict[str, Any]:
    ids = [product["productId"] for product in products]
    rule: dict[str, Any] = {"ruleId": name, "productId": ids[0] if len(ids) == 1 else ids}
    metrics = {
        metric: spec
        for metric, spec in products[0]["metrics"].items()
        if all(_type(product["metrics"].get(metric)) == _type(spec) for product in products)
    }
    param = all("params" in product for product in products)
    formulas = products[0]["formulas"] if len(products) == 1 else {}
    seeds = Seeds(random, metrics, formulas, param)
    kind = random.choices(["threshold", "limit", "absence", "sequence", "group"], [8, 3, 2, 2, 2])[0]
    rule["type"] = kind
    rule["severity"] = random.choice(SEVERITIES)
    {"threshold": _threshold, "limit": _limit, "absence": _absence, "sequence": _sequence, "group": _group}[
        kind
    ](random, rule, seeds)
    severities = rule["severity"].values() if isinstance(rule["severity"], dict) else [rule["severity"]]
    if random.random() < 0.4:
        rule["acknowledge"] = random.choice(["required", "none"]) if "info" not in severities else "none"
    if random.random() < 0.2:
        rule["latch"] = True
    if random.random() < 0.25:
        rule["max_shelve"] = random.choice([5 * SECOND, 30 * SECOND, 600 * SECOND])
    if random.random() < 0.15 and kind != "group":
        rule["where"] = random.choice(
            [
                ("cmp", "==", ("device", "site_id"), ("text", "ulsan")),
                ("cmp", "!=", ("device", "hub_id"), ("text", "hub-a")),
            ]
        )
        if kind in ("threshold", "limit") and random.random() < 0.6:
            rule["where"] = seeds.condition(1)
    if random.random() < 0.15:
        rule["schedule"] = _schedule(random)
    if random.random() < 0.2:
        last, steps = 0, []
        for _ in range(random.randint(1, 2)):
            last += random.choice([SECOND, 5 * SECOND, 30 * SECOND])
            step: dict[str, Any] = {"after": last}
            if random.random() < 0.6:
                step["unless"] = "acknowledged"
            step["severity"] = random.choice(["high", "critical"])
            steps.append(step)
        rule["escalate"] = steps
    if random.random() < 0.12:
        rule["mode"] = "shadow"
    mine = [r["ruleId"] for r in before if set(ids) & set(_list(r["productId"]))]
    if len(ids) == 1:
        mine = [r["ruleId"] for r in before if ids[0] in _list(r["productId"])]
    if mine and random.random() < 0.35 and len(ids) == 1 and kind != "group":
        chosen = random.sample(mine, random.randint(1, min(2, len(mine))))
        rule["suppressed_by"] = chosen[0] if len(chosen) == 1 else chosen
    if random.random() < 0.4 and kind in ("threshold", "limit") and "temp" in metrics:
        rule["message"] = (
            "{device_id} {ruleId} {{{transition}}} {temp:.1f} {metrics.temp} {site_id} {severity}"
        )
        if param:
            rule["message"] += " over {param.high}"
    return rule


def _type(metric: dict[str, Any] | None) -> str | None:
    return None if metric is None else metric.get("type", "number")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _delays(random: Random, rule: dict[str, Any]) -> None:
    if random.random() < 0.6:
        rule["on_delay"] = random.choice([0, 500 * MS, SECOND, 3 * SECOND, 10 * SECOND, 90 * SECOND])
    if random.random() < 0.4:
        rule["off_delay"] = random.choice([SECOND, 4 * SECOND, 20 * SECOND])


def _threshold(random: Random, rule: dict[str, Any], seeds: Seeds) -> None:
    while not list(metrics_of(condition := seeds.condition(2))):
        pass
    rule["condition"] = condition
    if random.random() < 0.3:
        rule["clear_condition"] = seeds.condition(1)
    elif random.random() < 0.3 and moved(condition, 1.0) != condition:
        rule["deadband"] = random.choice([0.5, 5.0, 10.0])
    _delays(random, rule)


def _limit(random: Random, rule: dict[str, Any], seeds: Seeds) -> None:
    rule["of"] = seeds.number(random.choice(seeds.numbers))
    limits: dict[str, Tree] = {
        "HH": ("num", 70.0),
        "H": ("num", 60.0),
        "L": ("num", 50.0),
        "LL": ("num", 40.0),
    }
    chosen = random.sample(list(limits), random.randint(1, 4))
    rule["limits"] = {name: limits[name] for name in limits if name in chosen}
    if seeds.param and random.random() < 0.3:
        rule["limits"]["H"] = ("param", "high")
    if random.random() < 0.5:
        rule["severity"] = {name: random.choice(SEVERITIES) for name in rule["limits"]}
    if random.random() < 0.5:
        rule["deadband"] = random.choice([0.5, 2.0])
    _delays(random, rule)


def _absence(random: Random, rule: dict[str, Any], seeds: Seeds) -> None:
    rule["for"] = random.choice([2 * SECOND, 7 * SECOND, 20 * SECOND, 120 * SECOND])
    if random.random() < 0.4:
        rule["of"] = random.choice(list(seeds.metrics))


def _sequence(random: Random, rule: dict[str, Any], seeds: Seeds) -> None:
    steps: list[dict[str, Any]] = []
    for number in range(random.randint(2, 3)):
        while not list(metrics_of(condition := seeds.condition(1))):
            pass
        step: dict[str, Any] = {"condition": condition}
        if number and not steps[-1].get("not") and random.random() < 0.5:
            step |= {"not": True, "within": random.choice(DURATIONS)}
        elif number and random.random() < 0.4:
            step["within"] = random.choice(DURATIONS)
        steps.append(step)
    rule["steps"] = steps
    if random.random() < 0.3:
        rule["clear_condition"] = seeds.condition(1)


def _group(random: Random, rule: dict[str, Any], seeds: Seeds) -> None:
    rule["over"] = random.choice(["hub_id", "site_id", "productId"])
    while True:
        condition = seeds.condition(1)
        if list(metrics_of(condition)) and "past" not in str(condition):
            break
    rule["condition"] = condition
    rule["when"] = random.choice(
        [
            ("cmp", ">", ("metric", "share"), ("num", 0.5)),
            ("cmp", ">=", ("metric", "count"), ("num", 1.0)),
            (
                "and",
                ("cmp", ">=", ("metric", "share"), ("num", 0.5)),
                ("cmp", ">", ("metric", "total"), ("num", 1.0)),
            ),
        ]
    )
    if random.random() < 0.3:
        rule["where"] = ("cmp", "==", ("device", "site_id"), ("text", "ulsan"))
    _delays(random, rule)


def _schedule(random: Random) -> Any:
    some = [
        {"cron": "*/5 * * * *", "for": 120 * SECOND},
        {"cron": "0-59/2 * * * *", "for": 30 * SECOND},
        {"cron": "1 18 * * *", "for": 300 * SECOND, "timezone": "Asia/Seoul"},
        {"cron": "0 9 * * 0", "for": 60 * SECOND},
        {"cron": "0 9 * * 1-5", "for": 3600 * SECOND},
        {"cron": "0,3,4 4 * * *", "for": 90 * SECOND, "timezone": "America/New_York"},
    ]
    chosen = random.sample(some, random.choice([1, 1, 2]))
    return chosen[0] if len(chosen) == 1 else chosen


# -- operators ----


def make_action(random: Random, plant: dict[str, Any], now: int, number: int) -> dict[str, Any]:
    """A line of recorded input. What an action on an alarm names is filled in later: `pick` chooses it."""
    data: dict[str, Any] = {"id": f"{number:032x}", "by": "kim", "why": random.choice(["", "seen", "off"])}
    settable = [
        row["device_id"]
        for row in plant["devices"]
        for product in plant["products"]
        if product["productId"] == row["productId"] and "params" in product and row.get("status") != "retired"
    ]
    if settable and random.random() < 0.2:
        value = random.choice([None, 45, 60.5, 70])
        device = random.choice(settable)
        data |= {"kind": "param", "device_id": device, "param": "high", "value": value}
    else:
        data |= {"kind": "alarm", "action": random.choice(ACTIONS), "pick": random.random(), "until_ms": None}
        if data["action"] == "shelve" and random.random() < 0.7:
            data["until_ms"] = now + random.choice([2_000, 15_000, 90_000, 900_000])
    return {"action": data, "at": now}


def named(lines: list[dict[str, Any]], alarms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines with what their actions name: one of the newest occurrences that raised before it.
    alarms: events of the same lines without actions on alarms."""
    raised = [one["data"] for one in alarms if one["data"]["transition"] == "raised"]
    raised = [one for one in raised if one["ruleId"] != "device-clock"]
    out = []
    frames = 0
    for line in lines:
        frames += "ingest_ts" in line
        data = line.get("action", {})
        if data.get("kind") == "alarm" and "pick" in data:
            before = [one for one in raised if one["evidence"]["position"] < frames][-5:]
            alarm_id = before[int(data["pick"] * len(before))]["alarm_id"] if before else "0" * 32
            data = {key: value for key, value in data.items() if key != "pick"} | {"alarm_id": alarm_id}
            line = {**line, "action": data}
        out.append(line)
    return out
