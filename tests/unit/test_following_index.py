"""What keeps the index behind PostgreSQL goes on after whatever is amiss for a moment."""

from __future__ import annotations

import errno
import time
from typing import NoReturn

import pytest

from groundplan.core.errors import Invalid
from groundplan.knowledge.retrieval import replication
from groundplan.knowledge.retrieval.editions import Editions
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import Follower


@pytest.mark.parametrize(
    "amiss",
    [
        Invalid("the file of the address cannot be read", code="secret_unreadable", hint="Write it."),
        OSError(errno.EMFILE, "Too many open files"),
    ],
)
def test_it_asks_again_for_the_address_of_the_database(amiss: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its file is just being replaced, or no file can be opened now."""
    monkeypatch.setattr(replication, "_RETRY_SECONDS", 0.01)
    asked = list[float]()

    def url() -> NoReturn:
        asked.append(time.monotonic())
        raise amiss

    follower = Follower(url, Editions(Projection()))
    follower.start()
    end = time.monotonic() + 10
    while len(asked) < 3:
        assert time.monotonic() < end, "it is not followed any more"
        time.sleep(0.01)
    follower.stop()
    assert not follower.connected
