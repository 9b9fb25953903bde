"""What is told of a change whose database is lost once it is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from psycopg import OperationalError

from groundplan.api import propagation
from groundplan.cli.keys import effective_text
from groundplan.console.form_result import propagation_note


def test_a_change_that_is_made_is_told_though_nobody_says_which_gateways_know_it() -> None:
    """Else the secret of a key that was just made would be known to nobody."""

    @contextmanager
    def away() -> Iterator[None]:
        raise OperationalError("the connection is lost")
        yield

    services: Any = SimpleNamespace(transaction=away)
    told = propagation.policy_effect(services, 7, wait=0.1)
    assert told == {"complete": False, "number": 7, "acknowledged": [], "waiting": []}
    assert effective_text("made", told) == ("made; which gateways know it cannot be told now: ask `groundplan status`")
    reply: Any = SimpleNamespace(ok=True, body={"effective": told})
    assert propagation_note(reply) == ", but which gateways know it cannot be told now"
