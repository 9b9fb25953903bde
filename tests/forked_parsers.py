"""Parsers that a test starts from its own process are forked from one that has them loaded: an eighth of a second of
computing less for each, and tests that take sources over start hundreds.

They confine themselves as ever. How a parser starts from nothing is shown where the sandbox itself is tested, and
wherever `up` takes sources over.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundplan.knowledge.parsing.child import ENVIRONMENT, Child
from tests.integration.nursery import fork_program

_SANDBOX = "groundplan.knowledge.parsing.sandbox"


class Forked(Child):
    """What the product starts as `Child(module, *arguments)`."""

    def __init__(self, module: str, *arguments: str, blocking: bool = True) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        with Path(os.devnull).open("wb") as unheard:
            self._process: Any = fork_program(
                module, arguments, unheard.fileno(), ENVIRONMENT, out=theirs_out, read=theirs_in
            )
        for end in (theirs_in, theirs_out):
            os.close(end)
        self.input, self.output = os.fdopen(ours_in, "wb"), os.fdopen(ours_out, "rb")
        for pipe in (self.input, self.output):
            os.set_blocking(pipe.fileno(), blocking)


def take_over() -> None:
    """From here on, in this process; nothing where nothing of it parses."""
    _put(Forked)


@contextmanager
def from_nothing() -> Iterator[None]:
    """Meanwhile they start as the product starts them."""
    _put(Child)
    try:
        yield
    finally:
        _put(Forked)


def _put(child: type[Child]) -> None:
    sandbox: Any = sys.modules.get(_SANDBOX)
    if sandbox is not None:
        sandbox.Child = child
