"""The control process with its console: the API's application plus server-rendered pages.

Pages know only the HTTP API (see `client`), so whatever a page shows or does, a program with the same rights can too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from groundplan.api.app import create_app, run
from groundplan.console import actions, pages
from groundplan.core.home import Home
from groundplan.core.settings import Settings

STATIC = Path(__file__).parent / "static"


def create_console(home: Home, settings: Settings, workspace: Path | None = None, demo: bool = False) -> FastAPI:
    """The API with the console's pages, forms and style mounted on it."""
    app = create_app(home, settings, workspace, demo)
    app.include_router(pages.router)
    app.include_router(actions.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m groundplan.console.app --home HOME --fd N`."""
    return run(create_console, arguments)


if __name__ == "__main__":
    sys.exit(main())
