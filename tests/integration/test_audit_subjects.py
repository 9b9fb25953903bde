"""Personal fields: sealed under one key per person, unreadable once that key is destroyed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from groundplan.core.audit.keys import create_keys
from groundplan.core.audit.store import destroy_subject_key
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.database import connect
from groundplan.core.errors import Invalid, NotFound
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.testing.database import Database

Conn = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"], autocommit=True) as conn:
        yield conn


@pytest.fixture
def keys(tmp_path: Path) -> SubjectKeys:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    return SubjectKeys.of(home)


def test_the_same_text_of_a_person_gives_the_same_token(conn: Conn, keys: SubjectKeys) -> None:
    ana, ben = new_id(), new_id()
    for text in ("ana@acme.example", "", "Zoë \N{SNOWMAN}"):
        token = keys.seal(conn, ana, text)
        assert token == keys.seal(conn, ana, text) != keys.seal(conn, ben, text)
        assert keys.unseal(conn, token) == text
        assert not text or text not in token


def test_after_erasure_neither_old_nor_later_entries_are_readable(
    conn: Conn, keys: SubjectKeys, database: Database
) -> None:
    ana, ben = new_id(), new_id()
    token, other = keys.seal(conn, ana, "ana@acme.example"), keys.seal(conn, ben, "ben@acme.example")
    destroy_subject_key(conn, str(ana))
    assert keys.unseal(conn, token) is None
    with connect(database.urls["shipper"], autocommit=True) as shipper:
        later = keys.seal(shipper, ana, "ana@acme.example")
    assert later.endswith(":erased") and keys.unseal(conn, later) is None
    assert keys.unseal(conn, other) == "ben@acme.example"
    destroy_subject_key(conn, str(new_id()))


def test_a_forged_token_or_another_home_is_refused(conn: Conn, keys: SubjectKeys) -> None:
    ana, ben = new_id(), new_id()
    token = keys.seal(conn, ana, "text")
    keys.seal(conn, ben, "text")
    for forged in (
        token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
        token.replace(str(ana), str(ben)),
        "sealed:x:y",
        "text",
        f"sealed:{ana}:",
        f"sealed:{ana}:é",
    ):
        with pytest.raises(Invalid) as caught:
            keys.unseal(conn, forged)
        assert caught.value.code == "sealed_token"
    with pytest.raises(NotFound):
        keys.unseal(conn, token.replace(str(ana), str(new_id())))
    with pytest.raises(Invalid) as foreign:
        SubjectKeys(bytes(64)).unseal(conn, token)
    assert foreign.value.code == "subject_key"
