"""The command `groundplan`: imports the module of a command only when that command is used, so that help is instant.

It contains no command itself; each has its own module and uses the HTTP API, or only files if it works offline.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperGroup

from groundplan.cli.output import discard_stdout, error_from_os, print_error, usage_error
from groundplan.core.errors import GroundplanError
from groundplan.core.settings import clear_libpq_formats, disable_pydantic_plugins

GC_THRESHOLDS = (50_000, 50, 100)
"""Thresholds of the garbage collector: nearly everything that a command imports stays alive, so collecting is rare."""
HELP = """The control plane for AI in production.

Begin with `init DIR`, `up --workspace DIR` and `login`. All that an installation keeps is in its HOME: --home,
GROUNDPLAN_HOME or ./.groundplan. With --json every command prints one JSON document.
"""
EXHAUSTION_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
"""Errors of a resource that this machine, or this user, has exhausted."""
LAST_STANDARD_DESCRIPTOR = 2
"""File descriptor of stderr, the last one that each program has open from its start."""
USAGE_EXIT_CODE = 2
"""Exit code of a wrong command line."""
SECTIONS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Start": {
        "init": ("workspace", "init", "Write a commented workspace that passes `check`."),
        "import": ("imports", "app", "Make a workspace from another tool's configuration."),
        "check": ("workspace", "check", "Report everything that is wrong in a workspace, offline."),
        "up": ("up", "up", "Start everything and serve until Ctrl-C."),
        "login": ("login", "login", "Make a one-time link to sign in to the console."),
        "status": ("status", "status", "Show the blueprint, the gateways, and what is pending on whom."),
    },
    "Workloads": {
        "plan": ("release", "plan", "Show what would change, at what price, and who must approve."),
        "apply": ("release", "apply", "Make the next blueprint from the workspace."),
        "rollback": ("release", "rollback", "Make a new blueprint with the content of an earlier one."),
        "changes": ("changes", "app", "Changes and their approvals: list, show, ask, renew."),
        "approve": ("decide", "approve", "Approve a change; you confirm it in your browser."),
        "refuse": ("decide", "refuse", "Refuse a change; you confirm it in your browser."),
        "prompts": ("prompts", "app", "Prompts and their versions: history, diff, rollback."),
        "readiness": ("readiness", "readiness", "Score each workload in five areas, from evidence only."),
    },
    "Calls": {
        "ask": ("ask", "ask", "Ask a workload a question as one of its people."),
        "calls": ("calls", "calls", "List calls: who made them, what they cost, how they ended."),
        "tail": ("tail", "tail", "Show calls as they finish."),
        "why": ("why", "why", "Explain a call, a change, a key or an audit entry."),
        "keys": ("keys", "app", "Create, list and revoke API keys."),
        "batches": ("batches", "app", "Batches with their progress, cost and reserved budget: list."),
        "responses": ("responses", "app", "Responses that are made in the background: list, cancel."),
        "cache": ("cache", "app", "Clear cached answers."),
    },
    "Placement": {
        "placement": ("placement", "app", "Where each workload runs, and why: show, what-if, stress, drift."),
        "routing": ("routing", "app", "How model `auto` chooses: train, evaluate, explain."),
        "experiments": ("experiments", "app", "Try another deployment: shadow, A/B, replay."),
    },
    "Knowledge": {
        "knowledge": ("knowledge", "app", "Documents and search: sources, findings, deletions, evaluate."),
    },
    "Cost": {
        "cost": ("cost", "app", "What calls have cost, exactly: book, forecast, statement, reconcile."),
    },
    "Operations": {
        "doctor": ("doctor", "doctor", "Check this machine and installation for problems."),
        "gateways": ("gateways", "app", "HOMEs of gateways that are gone, and declaring one lost."),
        "reload": ("reload", "reload", "Switch to newly installed code without failing a call."),
        "backup": ("backup", "backup", "Write one archive with database, log and keys."),
        "restore": ("backup", "restore", "Restore a backup into an empty HOME."),
        "kill": ("kill", "kill", "Stop a workload, deployment, site, source, key or the whole company now."),
    },
    "Governance": {
        "people": ("people", "people", "People: list, add, leave, holdings, handover."),
        "groups": ("people", "groups", "Groups and teams: list, add, join, leave."),
        "tokens": ("tokens", "app", "API tokens for programs: create, list, revoke."),
        "policy": ("policy", "app", "Company rules in Cedar: test them, try them in shadow, exceptions."),
        "erase": ("erase", "erase", "Erase a person everywhere, with a signed receipt; legal holds."),
        "review": ("review", "app", "Answers and tool calls that wait for a reviewer."),
        "controls": ("controls", "controls", "How far each workload meets the frameworks in force."),
        "evidence": ("controls", "evidence", "Evidence for controls: list, add, withdraw, collect."),
        "management": ("controls", "management", "Management review and corrective actions."),
        "register": ("register", "register", "Register of all AI assets, and their gaps."),
        "shadow": ("register", "shadow", "Find undeclared AI in proxy logs or bills."),
        "export": ("exports", "app", "For auditors: OSCAL, CycloneDX, legal documents, the data room."),
        "audit": ("audit", "app", "The audit log: verify from files alone, list, seal, rotate-key."),
    },
}
"""The commands in the sections of the console: module, function and one line of help of each."""
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyCommands(TyperGroup):
    """Lists names and one-line help from `COMMANDS`; imports a module when its command is used."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # names only: spelling suggestions read them

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        target = getattr(importlib.import_module(f"groundplan.cli.{entry[0]}"), entry[1])
        if isinstance(target, typer.Typer):
            command: Any = typer.main.get_group(target)
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            single.command(cmd_name)(target)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        del ctx
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry[2]) for name, entry in section.items()])


app = typer.Typer(
    name="groundplan",
    cls=LazyCommands,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        metadata = importlib.import_module("importlib.metadata")
        typer.echo(f"groundplan {metadata.version('groundplan')}")
        raise typer.Exit


def main() -> None:
    """Entry point of the console script: a `GroundplanError`, an unusable file or folder and an exhausted machine each
    become one message and an exit code."""
    gc.set_threshold(*GC_THRESHOLDS)
    disable_pydantic_plugins()
    clear_libpq_formats()
    _open_standard_files()
    try:
        try:
            app()
        except OSError as error:
            if error.filename is None and error.errno not in EXHAUSTION_ERRNOS:
                raise
            raise error_from_os(error) from error
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):  # the reader has closed the pipe, which is no error
                discard_stdout()
                raise SystemExit(0) from None
            if end.code == USAGE_EXIT_CODE and "--json" in sys.argv:
                print_error(usage_error(end.__context__), as_json=True)
            raise
    except GroundplanError as error:
        _report_error(error)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        discard_stdout()
        raise SystemExit(0) from None
    finally:
        gc.freeze()  # the process ends: a last collection would be wasted


def _report_error(error: GroundplanError) -> None:
    """Print an error in the requested form. If stdout cannot be written, it goes to stderr, and data buffered for
    stdout is discarded, since Python would try to write it at exit."""
    try:
        print_error(error, as_json="--json" in sys.argv)
    except OSError:
        with suppress(OSError):
            print_error(error, as_json=False)
    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()


def _open_standard_files() -> None:
    """Open the standard files that are closed: some launchers start programs without them, and a socket opened later
    would get their numbers and be taken for one of them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_DESCRIPTOR:
        continue
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


if __name__ == "__main__":
    main()
