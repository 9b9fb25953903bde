"""Workers of a whole run are forked from one process that has loaded what they load to look at the tests: half of the
ten seconds of computing that each of them would take to begin, and much of the memory that it would hold.

A run of some files has workers that start as ever: none of them loads all of this.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from execnet import gateway_base, gateway_io

from tests.integration.nursery import fork_program

_LOADED = (
    "groundplan.console.app", "groundplan.gateway.app", "groundplan.gateway.search_app", "groundplan.runtime.migrate",
    "groundplan.gateway.batches.batches_api", "groundplan.knowledge.service", "groundplan.cli.installed",
    "groundplan.testing.traffic", "groundplan.testing.database", "openai", "openai.types", "openai.types.responses",
    "openai.types.chat", "openai.types.realtime", "anthropic", "anthropic.types.beta", "alembic.config",
    "alembic.context", "any_llm.providers.gemini.base", "hypothesis", "hypothesis.stateful", "trestle.oscal.catalog",
    "trestle.oscal.profile", "trestle.oscal.component", "openresponses_types", "jsonschema", "reportlab.platypus",
    "reportlab.pdfgen.canvas", "dulwich.porcelain", "duckdb", "grimp", "openpyxl", "docx", "pptx", "pypdfium2",
    "fastapi.testclient", "fsspec", "pdfplumber",
)  # fmt: skip
_PLUGINS = ("anyio", "hypothesis", "_hypothesis_globals")
"""Of these pytest would look into asserts, which is too late."""


class _Forked(gateway_io.Popen2IOMaster):
    """What execnet starts as `python -c`."""

    def __init__(self, args: Sequence[str], execmodel: Any) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self.popen: Any = fork_program(gateway_base.__name__, args, 2, os.environ, out=theirs_out, read=theirs_in)
        for end in (theirs_in, theirs_out):
            os.close(end)
        gateway_base.Popen2IO.__init__(self, os.fdopen(ours_in, "wb"), os.fdopen(ours_out, "rb"), execmodel)


def take_over() -> None:
    """From here on, in the process that starts them."""
    gateway_io.Popen2IOMaster = _Forked  # type: ignore[misc]


def load() -> None:
    """Where they are forked from. What cannot be loaded, or warns, is told by who needs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for library in ("starlette", "fastapi"):
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=library)
        for name in _LOADED:
            try:
                importlib.import_module(name)
            except Exception:  # noqa: BLE001 -- as above
                continue
    for name in _PLUGINS:
        sys.modules[name].__doc__ = f"{sys.modules[name].__doc__} PYTEST_DONT_REWRITE"
