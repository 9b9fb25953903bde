"""Options that many commands share, so that they read the same everywhere."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.settings import Settings, load_settings

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of this installation. Default: GROUNDPLAN_HOME, else ./.groundplan."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="Folder of the workspace. Default: GROUNDPLAN_WORKSPACE, else the one applied last, else the current one.",
    ),
]
WorkloadOption = Annotated[str | None, typer.Option("--workload", help="Only this workload.")]


@dataclass(frozen=True, slots=True)
class Before:
    """What was said before the command of a group that lists without one; it holds for the command, too."""

    workload: str | None = None
    home: Path | None = None
    as_json: bool = False

    @classmethod
    def of(cls, context: typer.Context, workload: str | None, home: Path | None, as_json: bool) -> Before:
        """What was said there, and where nothing was, before."""
        before: Before = context.obj or cls()
        return cls(workload or before.workload, home or before.home, as_json or before.as_json)

    def named(self) -> dict[str, str]:
        """The query of a list."""
        return {"workload": self.workload} if self.workload else {}


def program_name() -> str:
    """The command as it has to be written here: that of a `make run` is not on the PATH."""
    own = Path(sys.executable).with_name("groundplan")
    found = shutil.which("groundplan")
    known = found is not None and Path(found).resolve() == own.resolve()
    return "groundplan" if known or not own.exists() else shlex.quote(os.path.relpath(own))


def settings_for(home: Path | None) -> Settings:
    """Settings with HOME from the command line where it was given."""
    settings = load_settings()
    return replace(settings, home=home.absolute()) if home is not None else settings


def home_for(home: Path | None) -> Home:
    return Home(settings_for(home).home)


def workspace_for(workspace: Path | None, home: Path | None = None) -> Path:
    """The workspace that was named, also by the environment, else the one that was applied last to HOME, else the
    current folder. Raises `Invalid`."""
    folder = (workspace or load_settings().workspace or noted_workspace(home) or Path.cwd()).absolute()
    if not folder.is_dir():
        raise Invalid(f"there is no folder {folder}", code="workspace_missing", hint="Name it: --workspace DIR.")
    return folder


def noted_workspace(home: Path | None) -> Path | None:
    """The folder that was applied last to this HOME, if it is known."""
    try:
        noted = home_for(home).workspace.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return Path(noted) if noted else None
