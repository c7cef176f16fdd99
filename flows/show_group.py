"""A command whose plain form shows: `penstock alarms PLANT` is `penstock alarms show PLANT`."""

from __future__ import annotations

from pathlib import Path

import click

from operators.document import nearest


class ShowGroup(click.Group):
    """A group that takes `show` for the action where the first word is none, or is a folder of an action's
    name. Actions are listed in the order in which they were added."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands and not Path(args[0]).is_dir()
        if not named and args[:1] not in (["--help"], ["-h"]):
            if _are_words(args[:2]) and not Path(args[0]).is_dir():  # what shows takes one
                known = ", ".join(self.commands)
                told = f"no action '{args[0]}'{nearest(args[0], self.commands)}; known: {known}"
                raise click.UsageError(told, ctx=ctx)
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _are_words(args: list[str]) -> bool:
    """Whether a command begins with two words that are no options."""
    return len(args) == 2 and not any(one.startswith("-") for one in args)
