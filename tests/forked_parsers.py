"""Parsers that a test starts from its own process are forked from one that has them loaded, which saves an eighth of a
second of computing each; tests that ingest sources start hundreds.

Their sandbox is unchanged. Tests of the sandbox itself, and those that ingest through `up`, do not fork parsers.
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


class ForkedChild(Child):
    """Replaces `Child(module, *arguments)` of the product."""

    def __init__(self, module: str, *arguments: str, blocking: bool = True) -> None:
        their_input, our_input = os.pipe()
        our_output, their_output = os.pipe()
        with Path(os.devnull).open("wb") as devnull:
            self._process: Any = fork_program(
                module, arguments, devnull.fileno(), ENVIRONMENT, out=their_output, read=their_input
            )
        for end in (their_input, their_output):
            os.close(end)
        self.input, self.output = os.fdopen(our_input, "wb"), os.fdopen(our_output, "rb")
        for pipe in (self.input, self.output):
            os.set_blocking(pipe.fileno(), blocking)


def install() -> None:
    """Fork parsers from now on in this process; without effect if it has not loaded the sandbox."""
    _set_child(ForkedChild)


@contextmanager
def without_forking() -> Iterator[None]:
    """Start parsers in this context as the product does."""
    _set_child(Child)
    try:
        yield
    finally:
        _set_child(ForkedChild)


def _set_child(child: type[Child]) -> None:
    sandbox: Any = sys.modules.get(_SANDBOX)
    if sandbox is not None:
        sandbox.Child = child
