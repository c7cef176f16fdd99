"""`penstock explain`: why a rule did or did not fire."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.table import Table
from rich.text import Text

from connectors.errors import ConfigError, PenstockError
from connectors.journal.lines import iso_time
from flows.alarm_filters import state_words
from flows.check_rules import raises
from flows.explain import Probe, flat
from flows.explain_evaluation import Evaluation
from flows.explain_replay import FOREVER, Replayed, checked, replay_data, replay_recording
from flows.explain_timers import delay_of
from flows.folder import data_directory, open_plant
from flows.look_command import emit, show
from flows.look_tables import shown, table
from flows.plant_tests import parse_time
from flows.remote_plant import no_url
from flows.views import Views
from rules.schedule import Windows
from rules.spec import Rule

SAMPLES_PRINTED: Final = 6
DEVICES_SHOWN: Final = 50


@click.command()
@no_url("explain reads the journal and the snapshot of state, so it is asked where the plant's data is")
@click.argument("plant", type=click.Path(path_type=Path))
@click.argument("rule")
@click.option("--device", help="one device; default: a line for each, the whole where there is one alone")
@click.option("--at", help="as it stood at this time of the journal's clock; default: now")
@click.option(
    "--input",
    "inputs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="recorded input instead of the plant's journal; may be given several times",
)
@click.option("--data", type=click.Path(path_type=Path), help="default: PLANT/.penstock")
@click.option("--json", "as_json", is_flag=True, help="machine-readable output")
def explain(
    plant: Path,
    rule: str,
    device: str | None,
    at: str | None,
    inputs: tuple[Path, ...],
    data: Path | None,
    as_json: bool,
) -> None:
    """Why RULE of PLANT did or did not fire: every sub-expression with its value, quality and age.

    What was journaled is worked on again by the live engine, up to now or --at.
    """
    until = _until(at)
    if inputs:
        loaded = open_plant(plant)
        checked(loaded, rule, None)
        replayed = replay_recording(loaded, list(inputs), rule, device, until)
        checked(replayed.shard.current, rule, device)  # the recording may have made the device known
        found = explanation(replayed, rule, device)
    else:
        folder = data_directory(plant, data)
        views = Views(folder)
        if views.shards[0].journal() is None:
            raise PenstockError(f"{folder} holds no plant's data; run it first: penstock run {plant}")
        checked(views.plant_now(), rule, device)
        found = merged(
            [
                explanation(replay_data(shard, rule, device, until), rule, device)
                for shard in _asked(views, device)
            ]
        )
    if as_json:
        emit(found)
    else:
        show(*report(found))


def _until(at: str | None) -> int:
    if at is None:
        return FOREVER
    moment = None if at.startswith("+") else parse_time(at, 0)
    if moment is None:
        raise ConfigError(f"--at {at}: write a time, e.g. 2026-03-01T09:00:00Z")
    return moment * 1_000_000


def _asked(views: Views, device: str | None) -> list[Path]:
    """The folders of the shards to look at: that of the device, if it has been heard, else all."""
    knows = [one.folder for one in views.shards if device is not None and one.records_of(device)]
    return knows or [one.folder for one in views.shards]


def merged(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several shards tell of a rule, as one; a device that none has heard stands in it once."""
    whole = dict(found[0])
    heard = [one for told in found for one in told["devices"] if one["last_reading"] is not None]
    devices = heard or whole["devices"]
    whole["devices"] = devices[:DEVICES_SHOWN]
    whole["more"] = sum(told["more"] for told in found) + max(0, len(devices) - DEVICES_SHOWN)
    whole["complete"] = all(told["complete"] for told in found)
    return whole


def explanation(replayed: Replayed, rule: str, device: str | None) -> dict[str, Any]:
    """What `--json` prints."""
    probes = replayed.probes
    one = next(iter(probes.values()))
    found: dict[str, Any] = {
        "plant": replayed.shard.current.name,
        "ruleId": rule,
        "rule_version": one.spec.rule.version,
        "type": one.spec.rule.type,
        "at": iso_time(replayed.clock_ns) if replayed.clock_ns else None,
        "source": replayed.source,
        "from": iso_time(replayed.first_ns) if replayed.first_ns else None,
        "complete": replayed.complete,
        "more": max(0, sum(len(probe.last) for probe in probes.values()) - DEVICES_SHOWN),
        "devices": [_device(replayed, probe, slot) for probe, slot in _shown(probes)],
    }
    if device is not None and not found["devices"]:
        found["devices"] = [_never(device, one)]
    return found


def _shown(probes: Mapping[str, Probe]) -> list[tuple[Probe, int]]:
    every = [(probe, slot) for probe in probes.values() for slot in sorted(probe.last)]
    return every[:DEVICES_SHOWN]


def _never(device: str, probe: Probe) -> dict[str, Any]:
    return {
        "device_id": device,
        "productId": probe.spec.product.productId,
        "outcome": "no reading of it has reached the rules",
        "last_reading": None,
        "evaluated": None,
        "expressions": [],
        "passed_by": probe.passed_by.get(device, {}),
        "parameters": [],
        "delays": [],
        "suppressed_by": list(probe.spec.rule.suppressors),
        "in_schedule": None,
        "alarms": [],
    }


def _device(replayed: Replayed, probe: Probe, slot: int) -> dict[str, Any]:
    name = replayed.shard.devices.names[slot]
    evaluation = probe.evaluation(slot)
    rule = probe.spec.rule
    expressions = probe.explained(slot) if evaluation is not None else []
    delays = [] if evaluation is None else delay_of(replayed.rules, probe.spec.product.productId, rule, slot)
    alarms = [data for _, data in sorted(replayed.alarms.items()) if data["device_id"] in (name, None)]
    inside = _in_schedule(replayed, rule, evaluation)
    return {
        "device_id": name,
        "productId": probe.spec.product.productId,
        "outcome": outcome(rule, expressions, delays, alarms, inside),
        "last_reading": iso_time(probe.last[slot]),
        "evaluated": None
        if evaluation is None
        else {
            "time": iso_time(evaluation.time_ns),
            "ingest_time": iso_time(evaluation.ingest_ns),
            "position": evaluation.position,
            "recalled": evaluation.recalled,
        },
        "expressions": [_plain(one) for one in expressions],
        "parameters": _parameters(probe, slot),
        "delays": delays,
        "passed_by": probe.passed_by.get(name, {}),
        "suppressed_by": list(rule.suppressors),
        "in_schedule": inside,
        "alarms": [
            {
                key: data[key]
                for key in ("alarm_id", "transition", "event_time", "onset_time", "state", "message")
            }
            for data in alarms
        ],
    }


def _in_schedule(replayed: Replayed, rule: Rule, evaluation: Evaluation | None) -> bool | None:
    """Whether the reading stands in a window of the rule's schedule; None where it has none."""
    if not rule.schedules or evaluation is None:
        return None
    windows = Windows.of(rule.schedules, replayed.shard.current.timezone)
    return bool(windows.covers(np.array([evaluation.time_ns], np.int64))[0])


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """Times in words of JSON."""
    return {**one, "tree": _plain_node(one["tree"])}


def _plain_node(node: dict[str, Any]) -> dict[str, Any]:
    told = {**node, "children": [_plain_node(below) for below in node["children"]]}
    if "past" in node:
        past = dict(node["past"])
        for key in [key for key in past if key.endswith("_ns")]:
            at = past.pop(key)
            past[key.removesuffix("_ns")] = None if at is None else iso_time(at)
        if "samples" in past:
            past["samples"] = [
                {"time": iso_time(at), "value": None if math.isnan(value) else value}
                for at, value in past["samples"]
            ]
        told["past"] = past
    return told


def _parameters(probe: Probe, slot: int) -> list[dict[str, Any]]:
    names = {
        node["param"]: None
        for one in probe.explained(slot)
        for _, node in flat(one["tree"])
        if "param" in node
    }
    return [
        dict(zip(("name", "value", "from"), (name, *probe.param_then(name, slot)), strict=True))
        for name in names
    ]


def outcome(
    rule: Rule, expressions: list[Any], delays: list[Any], alarms: list[Any], inside: bool | None
) -> str:
    """One sentence: what stands, and what keeps it from being otherwise."""
    active = [data for data in alarms if data["state"]["active"]]
    if active:
        return f"raised: {', '.join(state_words(active[0]['state']))} since {active[0]['onset_time']}"
    if (told := raises(rule)) is not None:
        return f"not raised; what raises: {told}"
    if not expressions:
        return "not evaluated: no reading carried one of its metrics"
    running = [delay for delay in delays if delay["phase"] == "rising"]
    if running:
        stopped = ", stopped by an unknown value" if running[0]["paused"] else ""
        return f"not raised yet: the condition holds since {running[0]['since']}, on_delay runs{stopped}"
    values = {one["what"]: one["value"] for one in expressions}
    if values.get("where", True) is not True:
        return f"not raised: where is {_word(values['where'])}"
    if inside is False:
        return "not raised: the reading stands outside of the rule's schedule"
    conditions = [value for what, value in values.items() if what.startswith("condition")]
    told = "true" if True in conditions else "unknown" if None in conditions else "false"
    return f"not raised: the condition is {told}"


def _word(value: Any) -> str:
    return "unknown" if value is None else shown(value)


def report(found: dict[str, Any]) -> list[Any]:
    """What is printed."""
    parts: list[Any] = [f"{found['ruleId']} ({found['type']}, {found['rule_version']}) at {found['at']}"]
    if found["from"] is None:
        parts = [f"{found['ruleId']} ({found['type']}, {found['rule_version']})"]
        parts.append(Text("the journal holds nothing of that time or before it", "yellow"))
    elif not found["complete"]:
        parts.append(
            Text(
                f"what was journaled before {found['from']} is not there any more: values held, delays and"
                " windows that began earlier are missing",
                "yellow",
            )
        )
    devices = found["devices"]
    if not devices:
        return [*parts, "no reading of its products has reached the rules"]
    if len(devices) > 1:
        more = f"{found['more']} more; " if found["more"] else ""
        return [*parts, "", _device_table(devices), "", f"{more}--device NAME shows every sub-expression"]
    return [*parts, *_one(devices[0])]


def _device_table(devices: list[Any]) -> Table:
    return table(
        ["device", "evaluated", "outcome"],
        (
            (one["device_id"], (one["evaluated"] or {}).get("time", "never"), one["outcome"])
            for one in devices
        ),
    )


def _one(device: dict[str, Any]) -> list[Any]:
    parts: list[Any] = [f"{device['device_id']} ({device['productId']}): {device['outcome']}"]
    if device["evaluated"] is not None:
        evaluated = device["evaluated"]
        parts.append(
            f"last evaluated by the reading of {evaluated['time']}, position {evaluated['position']}"
        )
        if evaluated["recalled"]:
            parts.append(
                Text(
                    "from what the flow's snapshot holds of it: rate, delta, prev, changed are not known",
                    "yellow",
                )
            )
    if device["last_reading"] is not None and device["evaluated"] is None:
        parts.append(f"last reading {device['last_reading']}")
    for one in device["expressions"]:
        if one["default"]:
            parts += ["", f"{one['what']}: {one['text']}, which is {_word(one['value'])}"]
        else:
            parts += ["", _tree(one)]
    if device["passed_by"]:
        counts = ", ".join(f"{count} {why}" for why, count in device["passed_by"].items())
        parts += ["", Text(f"readings that rules did not see: {counts}", "yellow")]
    if device["suppressed_by"]:
        parts += ["", f"suppressed by {', '.join(device['suppressed_by'])} while that is active"]
    for parameter in device["parameters"]:
        parts += ["", f"param.{parameter['name']} = {_word(parameter['value'])} ({parameter['from']})"]
    for delay in device["delays"]:
        parts += ["", _delay_line(delay)]
    for alarm in device["alarms"]:
        words = ", ".join(state_words(alarm["state"]))
        parts += [
            "",
            f"{alarm['transition']} {alarm['event_time']}: {words}"
            f"  {alarm['alarm_id'][:12]}  {alarm['message']}",
        ]
    return parts


def _tree(one: dict[str, Any]) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False)
    made.add_column("value")
    made.add_column(one["what"], overflow="fold")
    for depth, node in flat(one["tree"]):
        value, colour = node["value"], ""
        if value is None or isinstance(value, bool):
            colour = "yellow" if value is None else "green" if value else "red"
        line = Text("  " * depth + node["text"])
        if beside := _beside(node):
            line.append(f"   [{beside}]", "dim")
        made.add_row(Text(_word(value), colour), line)
    return made


def _beside(node: Mapping[str, Any]) -> str:
    """Quality and age of a metric, where a parameter comes from, what a function remembers."""
    told = []
    if "quality" in node:
        told.append(node["quality"])
        if node["age_s"]:
            told.append(f"held for {node['age_s']:g} s")
    if "from" in node:
        told.append(node["from"])
    if "formula" in node:
        told.append(node["formula"])
    past = node.get("past", {})
    if "samples" in past:
        samples = past["samples"]
        some = ", ".join(shown(one["value"]) for one in samples[-SAMPLES_PRINTED:])
        dots = "..., " if len(samples) > SAMPLES_PRINTED else ""
        since = f" since {samples[0]['time']}" if samples else ""
        told.append(f"{len(samples)} samples{since}: {dots}{some}")
    told += [
        f"{key.replace('_', ' ')} {_word(value)}"
        for key, value in past.items()
        if key != "samples" and value is not None
    ]
    return ", ".join(told)


def _delay_line(delay: dict[str, Any]) -> str:
    head = " ".join(filter(None, (delay["part"], delay["what"], f"{delay['seconds']:g} s")))
    if delay["since"] is None:
        return f"{head}: not running ({delay['phase']})"
    stopped = f", stopped at {delay['paused']} by an unknown value" if delay["paused"] else ""
    return f"{head}: runs since {delay['since']}, over at {delay['due']}{stopped}"
