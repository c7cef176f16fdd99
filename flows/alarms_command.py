"""`penstock alarms`: what is open, what happened, and what operators do about it.

penstock alarms PLANT                                   open alarms
penstock alarms ack|shelve|... PLANT ALARM_ID... --why  an operator's action
penstock alarms stats PLANT                             alarm-system figures
"""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Group
from rich.live import Live

from connectors.errors import ConfigError, PenstockError
from flows import alarm_actions
from flows.alarm_figures import report
from flows.alarm_filters import SEVERITIES, STATES, AlarmFilters
from flows.alarm_tables import alarms_table, count_line, event_line, events_table, state_text
from flows.look_command import Plant, emit, find, plant_options, show
from flows.plant_tests import parse_time
from flows.remote_plant import RemotePlant
from flows.show_group import ShowGroup
from flows.views import Views

LIVE_S: Final = 1.0
FOLLOW_S: Final = 0.2
FOLLOW_AT_ONCE: Final = 10_000
PREFIX_LEAST: Final = 6


@click.group(cls=ShowGroup)
def alarms() -> None:
    """Open alarms of a plant, their events, and what operators do about them.

    `penstock alarms PLANT` is `penstock alarms show PLANT`.
    """


@alarms.command()
@click.argument("plant", required=False, type=click.Path(path_type=Path))
@click.option("--rule", help="only of this rule")
@click.option("--device", help="only of this device")
@click.option("--severity", type=click.Choice(SEVERITIES), help="only of this severity")
@click.option("--state", type=click.Choice(STATES), help="only those that are so")
@click.option("--product", help="only of this product")
@click.option("--site", help="only of this site")
@click.option("--shadow", is_flag=True, help="events of rules in mode shadow")
@click.option("--history", is_flag=True, help="the newest events instead of what is open")
@click.option("--follow", is_flag=True, help="events as they come, until Ctrl-C")
@click.option("--once", is_flag=True, help="one shot instead of a live view")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@plant_options
def show_alarms(
    plant: Path | None,
    rule: str | None,
    device: str | None,
    severity: str | None,
    state: str | None,
    product: str | None,
    site: str | None,
    shadow: bool,
    history: bool,
    follow: bool,
    once: bool,
    limit: int,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Open alarms of PLANT, the gravest first; live on a terminal."""
    filters = AlarmFilters(rule, device, severity, state, product, site)
    looked = find(plant, data, url, token)
    if follow:
        follow_alarms(looked, limit, filters, as_json)
    elif shadow or history:
        rows = looked.shadow_events(limit, filters) if shadow else looked.alarm_history(limit, filters)
        if as_json:
            emit(rows)
        elif rows:
            show(events_table(rows))
        else:
            click.echo("no alarm events" if filters.query() or shadow else "no alarm events yet")
            if shadow:
                click.echo("what is older is in the historian: table alarms, WHERE _shadow", err=True)
    elif as_json or once or not sys.stdout.isatty():
        rows = looked.open_alarms(filters)[:limit]
        if as_json:
            emit(rows)
        elif rows:
            show(alarms_table(rows))
        else:
            click.echo("no open alarms")
    else:
        watch_alarms(looked, limit, filters)


show_alarms.name = "show"
alarms.commands = {"show": show_alarms}


def watch_alarms(plant: Plant, limit: int, filters: AlarmFilters) -> None:
    """The table of open alarms, over and over, until Ctrl-C."""
    with Live(screen=True, auto_refresh=False) as live:
        while True:
            rows = plant.open_alarms(filters)
            live.update(Group(count_line(rows), "", alarms_table(rows[:limit])), refresh=True)
            time.sleep(LIVE_S)


def follow_alarms(plant: Plant, limit: int, filters: AlarmFilters, as_json: bool) -> None:
    """Print events as they come, the newest `limit` first; until Ctrl-C. None is left out as long as
    fewer than 10,000 come between two looks."""
    after, events = plant.alarm_events(None, limit, filters)
    while True:
        for event in events:
            click.echo(json.dumps(event, ensure_ascii=False) if as_json else event_line(event))
        sys.stdout.flush()
        if not events:
            time.sleep(FOLLOW_S)
        after, events = plant.alarm_events(after, FOLLOW_AT_ONCE, filters)


def _act(
    action: str,
    words: tuple[str, ...],
    by: str | None,
    why: str | None,
    until: str | None,
    duration: str | None,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> int:
    """Do one action on each alarm that is named; 1 where any is refused."""
    named = list(words)
    path = None if url is not None or (data is not None and not _is_folder(named)) else Path(named.pop(0))
    if not named:
        raise click.UsageError("name the alarms: PLANT ALARM_ID... ('penstock alarms PLANT' lists them)")
    plant = find(path, data, url, token)
    who = by if by is not None else getpass.getuser()
    ids = [_alarm_id(plant, name) for name in named]
    now_ms = int(time.time() * 1000)
    wanted = [alarm_actions.checked(action, one, who, why, until, duration, now_ms) for one in ids]
    answers = []
    for one in wanted:
        answer = _send(plant, one, {"by": who, "why": why, "until": until, "for": duration}, path)
        answers.append(answer)
        if not as_json:
            _tell(action, answer)
    if as_json:
        emit(answers)
    return 0 if all(answer["accepted"] for answer in answers) else 1


def _is_folder(words: list[str]) -> bool:
    return bool(words) and Path(words[0]).is_dir()


def _alarm_id(plant: Plant, name: str) -> str:
    """The alarm_id that a whole id or the beginning of one stands for."""
    prefix = name.lower()
    if len(prefix) < PREFIX_LEAST or len(prefix) > 32 or not set(prefix) <= set("0123456789abcdef"):
        raise ConfigError(f"'{name[:40]}' is no alarm_id; write at least its first {PREFIX_LEAST} digits")
    return alarm_actions.find_one(plant.find_alarms(prefix), prefix)


def _send(
    plant: Plant, action: alarm_actions.Action, body: dict[str, Any], path: Path | None
) -> dict[str, Any]:
    if isinstance(plant, RemotePlant):
        given = {name: value for name, value in body.items() if value is not None}
        return plant.act(action.alarm_id, action.action, given)
    assert isinstance(plant, Views)
    if not plant.is_running():
        raise PenstockError(f"the plant is not running; start it with: penstock run {path or 'PLANT'}")
    action_id = alarm_actions.send(plant.data, action.data())
    answer = alarm_actions.wait(plant, action_id)
    if answer is None:
        raise PenstockError(
            f"no answer in {alarm_actions.ANSWER_S:.0f} s (see 'penstock top'); action {action_id} stands"
            " in the journal and is worked on when the flow comes to it"
        )
    return answer


def _tell(action: str, answer: dict[str, Any]) -> None:
    head = f"{answer['alarm_id'][:12]}  {answer['subject'] or ''}"
    if answer["accepted"]:
        click.echo(f"ok       {head}  {action}: {answer['message']}")
        return
    state = answer["state"]
    met = f" (it is {state_text(state).plain})" if state else ""
    click.echo(f"refused  {head}  {action}: {answer['message']}{met}", err=True)


def _action(action: str, told: str) -> click.Command:
    shelving = action == "shelve"

    def run(
        words: tuple[str, ...],
        by: str | None,
        why: str | None,
        data: Path | None,
        url: str | None,
        token: str | None,
        as_json: bool,
        until: str | None = None,
        duration: str | None = None,
    ) -> int:
        return _act(action, words, by, why, until, duration, data, url, token, as_json)

    options: list[Callable[..., Any]] = [
        click.argument("words", nargs=-1, required=True, metavar="PLANT ALARM_ID..."),
        click.option("--by", help="who acts; default: the name of the login"),
        click.option("--why", help="the reason, kept with the event"),
    ]
    if shelving:
        options += [
            click.option("--for", "duration", help="how long, e.g. 2h; at most the rule's max_shelve"),
            click.option("--until", help="until when, e.g. 2026-03-01T17:00:00Z"),
        ]
    command: Callable[..., Any] = plant_options(run)
    for option in reversed(options):
        command = option(command)
    ids = "An ALARM_ID may be cut to a beginning that is one alarm's alone, of six digits or more."
    whole = f"{told[0].upper()}{told[1:]}. {ids} With --url leave PLANT out."
    return click.command(action, help=whole, short_help=told)(command)


for _name, (_, _told) in alarm_actions.ACTIONS.items():
    alarms.add_command(_action(_name, _told))


@alarms.command()
@click.argument("plant", required=False, type=click.Path(path_type=Path))
@click.option("--from", "start", help="from when on, e.g. 2026-03-01T00:00:00Z; default: the first event")
@click.option("--to", "end", help="until when; default: now")
@plant_options
def stats(
    plant: Path | None,
    start: str | None,
    end: str | None,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Alarm-system figures of PLANT after ISA-18.2 and EEMUA 191: rate, floods, chattering, stale, the
    ten most frequent, severities, time to acknowledge."""
    start_ms, end_ms = _moment("--from", start), _moment("--to", end)
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        raise ConfigError("--to: is not after --from")
    figures = find(plant, data, url, token).alarm_figures(start_ms, end_ms)
    if as_json:
        emit(figures)
    else:
        show(*report(figures))


def _moment(option: str, text: str | None) -> int | None:
    at = None if text is None or text.startswith("+") else parse_time(text, 0)
    if text is not None and at is None:
        raise ConfigError(f"{option} {text}: write a time, e.g. 2026-03-01T09:00:00Z")
    return at
