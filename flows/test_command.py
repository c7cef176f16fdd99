"""`penstock test`: tests/*.yaml through the live engine, without a network."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from connectors.errors import ConfigError
from flows.check_command import check_folder
from flows.engine import run_recording
from flows.plant_file import Plant
from flows.plant_test_frames import recording_of
from flows.plant_tests import ExpectedReject, PlantTest, check_tests, start_of
from flows.recorded import recorded_slices
from flows.replay_files import Outcome
from flows.test_differences import alarm_differences
from flows.vectors import run_plant_vectors
from operators.document import Problems


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="machine-readable output")
def test(plant: Path, as_json: bool) -> int:
    """Run the tests of PLANT; exit code 1 where something differs."""
    loaded, problems = check_folder(plant, vectors=False)
    if loaded is None:
        raise ConfigError(problems.render())
    tests = check_tests(loaded, Problems())
    vectors = run_plant_vectors(loaded)
    if not tests and not vectors and not as_json:
        click.echo("no tests: write one into tests/*.yaml, or 'vectors' into a product", err=True)
    results = []
    for ran in vectors:
        differences = [f"{one.line}:{one.column}  {one.path}: {one.text}" for one in ran.problems]
        name = f"vector {ran.number}" + (f": {ran.name}" if ran.name else "")
        results.append({"file": ran.file, "name": name, "differences": differences})
        if not as_json:
            _tell(ran.file, name, differences)
    for one in tests:
        differences = run_test(loaded, one, plant)
        results.append({"file": one.path, "name": one.case.name, "differences": differences})
        if not as_json:
            _tell(one.path, one.case.name, differences)
    failed = len([result for result in results if result["differences"]])
    if as_json:
        click.echo(json.dumps({"ok": not failed, "tests": results}, ensure_ascii=False))
    elif results:
        click.echo(f"{len(results) - failed} of {len(results)} passed")
    return 1 if failed else 0


def _tell(file: str, name: str, differences: list[str]) -> None:
    click.echo(f"{'ok  ' if not differences else 'FAIL'}  {file}  {name}")
    for line in differences:
        click.echo(f"      {line}")


def run_test(plant: Plant, test: PlantTest, folder: Path) -> list[str]:
    """What differs from what the test expects, line by line; [] when nothing does."""
    try:
        recording = recording_of(plant, test, folder)
    except ConfigError as error:
        return [str(error)]
    start = start_of(test.case) or 0
    with tempfile.TemporaryDirectory() as scratch:
        paths = [one for one in recording if isinstance(one, Path)]
        if not paths:
            lines = Path(scratch) / "input.jsonl"
            lines.write_text("".join(json.dumps(one) + "\n" for one in recording), encoding="utf-8")
            paths = [lines]
        outcome = run_recording(plant, recorded_slices(plant, paths))
    return [*_alarms(test, outcome, start), *_rejects(test, outcome), *_readings(test, outcome)]


def _alarms(test: PlantTest, outcome: Outcome, start: int) -> list[str]:
    expected = test.case.expect.alarms
    if expected is None:
        return []
    events = [event["data"] for event in outcome.alarms]
    found = [data for data in events if data["transition"] in ("raised", "cleared")]
    return alarm_differences(expected, found, start)


def _rejects(test: PlantTest, outcome: Outcome) -> list[str]:
    expected = test.case.expect.rejects
    if expected is None:
        return []
    found = outcome.rejects
    wanted = expected if isinstance(expected, int) else len(expected)
    lines = [] if len(found) == wanted else [f"rejects: expected {wanted}, got {len(found)}"]
    if isinstance(expected, list):
        for number, (one, reject) in enumerate(zip(expected, found, strict=False)):
            for key in ExpectedReject.__struct_fields__:
                value = getattr(one, key)
                if value is not None and value != reject[key]:
                    lines.append(f"rejects[{number}].{key}: expected {value!r}, got {reject[key]!r}")
    if lines:
        lines += [f"  got {one['reason']}: {one['message']}" for one in found[:5]]
    return lines


def _readings(test: PlantTest, outcome: Outcome) -> list[str]:
    expected = test.case.expect.readings
    accepted = outcome.summary["readings"]["accepted"]
    if expected is None or expected == accepted:
        return []
    return [f"readings: expected {expected} accepted, got {accepted}"]
