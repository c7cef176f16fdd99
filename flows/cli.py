"""The command line: `penstock COMMAND [PLANT]`.

Exit codes: 0 good, 1 the user's input is wrong, 2 wrong usage, 3 the environment failed. Commands
are imported when they are called, so that `penstock --help` answers at once.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from connectors.errors import ConfigError, PenstockError

COMMANDS: dict[str, tuple[str, str, str]] = {
    # name: (module, attribute, one line for --help)
    "demo": ("flows.demo", "demo", "run the example press line with simulated devices"),
    "new": ("flows.new_command", "new", "write a commented starter plant"),
    "check": ("flows.check_command", "check", "validate a plant folder"),
    "run": ("flows.run_command", "run", "run a plant under the supervisor"),
    "apply": ("flows.apply_command", "apply", "bring a changed folder into a running plant"),
    "history": ("flows.history_command", "history", "applied versions of a plant"),
    "diff": ("flows.history_command", "diff", "what changed between applied versions"),
    "rollback": ("flows.history_command", "rollback", "go back to an applied version"),
    "replay": ("flows.replay_command", "replay", "the live engine over recorded input"),
    "backtest": ("flows.backtest_command", "backtest", "the folder's rules over archived input"),
    "capture": ("flows.capture_command", "capture", "write live frames as recorded input"),
    "test": ("flows.test_command", "test", "run a plant's tests"),
    "simulate": ("flows.simulate_command", "simulate", "send plausible frames to a plant's sources"),
    "explain": ("flows.explain_command", "explain", "why a rule did or did not fire"),
    "decode": ("flows.decode_command", "decode", "frames to readings, byte by byte"),
    "alarms": ("flows.alarms_command", "alarms", "open alarms, their history, operators' actions, figures"),
    "rejects": ("flows.look_command", "rejects", "frames and readings that were refused"),
    "devices": ("flows.master_command", "devices", "devices, when they were last heard, their master data"),
    "state": ("flows.look_command", "state", "newest values of devices"),
    "params": ("flows.params_command", "params", "parameters by device"),
    "top": ("flows.look_command", "top", "rates, lag and health, live"),
    "query": ("flows.query_command", "query", "SQL over the historian"),
    "export": ("flows.export_command", "export", "the historian's tables as CSV or Parquet"),
    "schema": ("flows.schema_command", "schema", "JSON Schemas of the plant folder"),
    "version": ("flows.version_command", "version", "versions of everything underneath"),
}

LATER = {
    "backup": "all that a plant stores",
    "restore": "bring a backup back",
    "verify": "check stored hash chains",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in LATER:
            return _later(name)
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and args[0] not in LATER:
            from operators.document import nearest

            raise click.UsageError(f"no command '{args[0]}'{nearest(args[0], [*COMMANDS, *LATER])}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, _, told) in COMMANDS.items()])


def _later(name: str) -> click.Command:
    @click.command(
        name,
        context_settings={"ignore_unknown_options": True},
        help=f"{LATER[name]}: not yet in this version",
    )
    @click.argument("arguments", nargs=-1)
    def command(arguments: tuple[str, ...]) -> None:
        raise click.UsageError(f"'penstock {name}' ({LATER[name]}) is not yet in this version")

    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Penstock: a stream-processing engine for plant telemetry."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `penstock`: turns every known error into one line and an exit code."""
    try:
        code: Any = cli.main(args=arguments, prog_name="penstock", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except PenstockError as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(3)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        click.echo(f"penstock: {where}{error.strerror or error}", err=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
