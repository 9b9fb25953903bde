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
class GroupOptions:
    """Options given to a group before its command, as in `batches --json list`; they apply to the command, too."""

    workload: str | None = None
    home: Path | None = None
    as_json: bool = False

    @classmethod
    def merged(cls, context: typer.Context, workload: str | None, home: Path | None, as_json: bool) -> GroupOptions:
        """The options given to the command, each completed by that of its group."""
        inherited: GroupOptions = context.obj or cls()
        return cls(workload or inherited.workload, home or inherited.home, as_json or inherited.as_json)

    def query(self) -> dict[str, str]:
        """Query parameters of the list's API request."""
        return {"workload": self.workload} if self.workload else {}


def program_name() -> str:
    """How the user has to write the command: `groundplan` if it is on the PATH, else its path, as after `make run`."""
    script = Path(sys.executable).with_name("groundplan")
    on_path = shutil.which("groundplan")
    is_on_path = on_path is not None and Path(on_path).resolve() == script.resolve()
    return "groundplan" if is_on_path or not script.exists() else shlex.quote(os.path.relpath(script))


def settings_for(home: Path | None) -> Settings:
    """Settings, with HOME from the command line if it was given."""
    settings = load_settings()
    return replace(settings, home=home.absolute()) if home is not None else settings


def home_for(home: Path | None) -> Home:
    return Home(settings_for(home).home)


def workspace_for(workspace: Path | None, home: Path | None = None) -> Path:
    """The workspace named on the command line or in the environment, else the one applied last to HOME, else the
    current folder. Raises `Invalid` if it does not exist."""
    folder = (workspace or load_settings().workspace or last_workspace(home) or Path.cwd()).absolute()
    if not folder.is_dir():
        if folder.is_file():
            message, hint = f"{folder} is a file, and a workspace is a folder", f"Name its folder: {folder.parent}"
            raise Invalid(message, code="workspace_missing", hint=hint)
        raise Invalid(f"there is no folder {folder}", code="workspace_missing", hint="Name it: --workspace DIR.")
    return folder


def last_workspace(home: Path | None) -> Path | None:
    """The workspace folder applied last to this HOME; None if unknown."""
    try:
        folder = home_for(home).workspace.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return Path(folder) if folder else None
