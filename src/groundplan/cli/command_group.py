"""Groups of commands, `groundplan GROUP COMMAND`, which show their help when no command is given.

Holds no command itself; `main` lists all of them.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

MAX_SENTENCE_CHARACTERS = 10_000
"""More characters than the first sentence of any command has, so that help wraps it and never shortens it."""


class CommandGroup(TyperGroup):
    """A group whose help shows the whole first sentence of each command."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(MAX_SENTENCE_CHARACTERS)) for name, command in commands if command]
            )


def command_group(help_text: str, *, runs_alone: bool = False) -> typer.Typer:
    """An empty group with this help. `runs_alone`: the group does something without a command instead of showing its
    help."""
    return typer.Typer(help=help_text, cls=CommandGroup, no_args_is_help=not runs_alone, rich_markup_mode=None)
