"""What `status` tells of work that does not go on though every process runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.integration.gateway_stack import blueprint, deployment

from groundplan.api import health
from groundplan.api.journal_lag import first_unshipped_at
from groundplan.blueprint.model import ProviderKey
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.gateway.journal.records import (
    HEADER_BYTES,
    RELEASE,
    RESERVATION,
    encode,
    encode_frame,
    segment_header,
    segment_path,
)
from groundplan.ledger.model import Release, Reservation

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


def reserved(at: datetime) -> bytes:
    made = Reservation(
        call=bytes(16), attempt=0, at=int(at.timestamp() * 1000), workload="w", person="", key="k", endpoint="chat",
        deployment="d", site="s", model="m", blueprint=1, bound=1, charges=(),
    )  # fmt: skip
    return encode(made)


def test_calls_that_do_not_get_into_the_ledger_are_told_with_since_when(tmp_path: Path) -> None:
    home, epoch = Home(tmp_path), uuid4()
    folder = home.journal / str(epoch)
    folder.mkdir(parents=True)
    first = encode_frame(RESERVATION, 1, reserved(AT - timedelta(hours=1)))
    release = encode_frame(RELEASE, 2, encode(Release(id=bytes(16), budget="b", period="p", amount=1)))
    then = encode_frame(RESERVATION, 3, reserved(AT))
    segment_path(folder, 1).write_bytes(segment_header(epoch, 1) + first + release + then + bytes(4096))
    segment_path(folder, 2).write_bytes(segment_header(epoch, 2) + bytes(4096))
    begins, ends = HEADER_BYTES + len(first), HEADER_BYTES + len(first + release + then)
    assert first_unshipped_at(folder, None, None) == (AT - timedelta(hours=1)).timestamp() * 1000
    assert first_unshipped_at(folder, 1, begins) == AT.timestamp() * 1000, "a release says no time"
    assert first_unshipped_at(folder, 1, ends) is None
    assert first_unshipped_at(tmp_path / "none", None, None) is None
    workers = [{"pid": 7, "epoch": epoch, "segment": 1, "position": begins}]
    assert health.ledger_problems(home, workers, AT + timedelta(seconds=30)) == []
    (told,) = health.ledger_problems(home, workers, AT + timedelta(seconds=90))
    assert told == "calls since 2026-03-02 12:00:00 UTC are not in the ledger (gateway 7): see HOME/logs/shipper.log"


def test_deployments_whose_keys_are_not_there_are_told_by_where_those_should_be(tmp_path: Path) -> None:
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.write_text("sk\n")
    names = [f"d{number}" for number in range(7)]
    places = [deployment(name, 9, key=f"file:{gone}") for name in names]
    places += [deployment("well", 9, key=f"file:{there}"), deployment("open", 9)]
    places.append(
        deployment("both", 9, keys=[ProviderKey(key=f"file:{there}"), ProviderKey(key="env:NOT_THERE_AT_ALL")])
    )
    found = health.missing_key_problems(blueprint(1, places, []))
    assert found == [
        f"calls of d0, d1, d2, d3, d4 and 2 others will fail: the secret file:{gone} cannot be read: "
        "FileNotFoundError. Check that the file exists and that this user may read it.",
        "calls of both will fail: the secret env:NOT_THERE_AT_ALL is empty or not set. "
        "Set NOT_THERE_AT_ALL where `groundplan up` starts.",
    ]
    assert health.missing_key_problems(None) == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"documents": 0, "follows": True, "failed": 2, "why": "x"}, []),
        ({"documents": 0, "follows": True, "failed": 9, "why": "search_database"},
         ["the last 9 searches failed (search_database): see HOME/logs/search.log"]),
        ({"documents": 0, "follows": False, "failed": 0, "why": ""},
         ["search does not follow PostgreSQL: see HOME/logs/search.log"]),
        ({"documents": 0}, []),
        (None, ["it is away: calls with sources are refused; see HOME/logs/search.log"]),
    ],
)  # fmt: skip
def test_searches_that_all_fail_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, told: list[str]
) -> None:
    def post(*_: Any) -> Any:
        if answer is None:
            raise Unavailable("it is away", code="service_unavailable", hint="Wait.")
        return answer

    monkeypatch.setattr(health, "post_local", post)
    monkeypatch.setattr(health, "CHECK_INTERVAL_SECONDS", 0.0)
    searching = health.SearchHealth(Home(tmp_path))
    assert searching.problems(["search"]) == [], "it may be starting"
    monkeypatch.setattr(health, "MIN_DURATION_SECONDS", 0.0)
    assert searching.problems(["search"]) == told
    assert searching.problems(["embedded"]) == []
    monkeypatch.setattr(health, "MIN_DURATION_SECONDS", 60.0)
    assert searching.problems(["search"]) == [], "from the beginning"


def test_who_looks_does_not_wait_for_it_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def post(*_: Any) -> Any:
        asked.append(1)
        raise Unavailable("it is away", code="service_unavailable", hint="Wait.")

    monkeypatch.setattr(health, "post_local", post)
    monkeypatch.setattr(health, "CHECK_INTERVAL_SECONDS", 60.0)
    searching = health.SearchHealth(Home(tmp_path))
    for _ in range(5):
        searching.problems(["search"])
    assert len(asked) == 1
