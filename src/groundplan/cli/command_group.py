"""Groups of commands, `groundplan GROUP COMMAND`, which all look the same: without a command they show their help.

It holds no command; see `main` for those that there are.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

SENTENCE = 10_000
"""More characters than the first sentence of a command has: help breaks lines, and leaves nothing out."""


class CommandGroup(TyperGroup):
    """Its help tells the first sentence of each command whole."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(SENTENCE)) for name, command in commands if command])


def command_group(about: str, *, answers: bool = False) -> typer.Typer:
    """A group with `about` as its help; one that `answers` does something without a command, too."""
    return typer.Typer(help=about, cls=CommandGroup, no_args_is_help=not answers, rich_markup_mode=None)
