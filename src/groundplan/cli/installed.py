"""The first step of a reload, run as a process of the newly installed code: import every program that will be
restarted, so that code which cannot be imported replaces nothing, then upgrade the database schema.

It starts none of these programs, so it does not find errors of their start. Running processes of earlier versions call
this module by its name.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from groundplan.runtime import migrate


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m groundplan.cli.installed --home HOME MODULE...`; the last line on stderr says what is wrong."""
    parser = argparse.ArgumentParser(prog="groundplan.cli.installed", description=__doc__)
    parser.add_argument("--home", required=True)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    options = parser.parse_args(arguments)
    for name in options.modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 -- code that is broken may raise anything
            sys.stderr.write(f"{name} cannot be loaded: {error.__class__.__name__}: {error}\n")
            return 1
    return migrate.main(("--home", options.home))


if __name__ == "__main__":
    raise SystemExit(main())
