"""What is read of each file of HOME of which a loss of power, or a damaged disk, left nothing, half, or something else:
an error with code and hint where it cannot be made anew, and nothing that ends a process without a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from groundplan.api import genesis
from groundplan.api.genesis import prepare_home
from groundplan.cli.reload import _read_state
from groundplan.core.audit.keys import create_keys, load_private, load_public, load_wrapping
from groundplan.core.audit.log import AuditLog
from groundplan.core.database import database_url
from groundplan.core.endpoints import read_announcement
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.identity import erase
from groundplan.identity.sessions import ensure_operator_token
from groundplan.knowledge.deletion import tombstones
from groundplan.knowledge.evaluation.history import list_runs
from groundplan.knowledge.gateway_client import ServiceKey, read_key
from groundplan.runtime.postgres import EmbeddedPostgres, _recorded_port

GARBAGE = bytes(range(128, 200))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    create_keys(made)
    with AuditLog(made.audit, load_private(made, "checkpoint")) as log:
        log.append([b"entry"])
    made.postgres.mkdir()
    passwords = dict.fromkeys(("superuser", "owner", "control", "gateway", "shipper", "search"), "secret")
    (made.postgres / "roles.json").write_text(json.dumps(passwords))
    (made.postgres / "port").write_text("5432\n")
    return made


def opened(home: Home) -> Any:
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        return log.checkpoint


REFUSED: list[tuple[str, str, Callable[[Home], Any]]] = [
    ("keys/checkpoint.key", "key_damaged", lambda home: load_private(home, "checkpoint")),
    ("keys/blueprint.key", "key_damaged", lambda home: load_private(home, "blueprint")),
    ("keys/blueprint.pub", "key_damaged", lambda home: load_public(home, "blueprint")),
    ("keys/subject.key", "key_damaged", load_wrapping),
    ("postgres/roles.json", "postgres_passwords", lambda home: EmbeddedPostgres(home)._passwords()),
    ("postgres/roles.json", "database_not_running", lambda home: database_url(home, load_settings({}), "owner")),
    ("audit/checkpoint", "note", opened),
    ("audit/tile/0/000.p/1", "audit_damaged", opened),
    ("audit/tile/entries/000.p/1", "audit_damaged", opened),
]


@pytest.mark.parametrize("left", ["nothing", "half", "garbage"])
@pytest.mark.parametrize(("name", "code", "read"), REFUSED)
def test_what_cannot_be_made_anew_is_refused_by_its_name(
    home: Home, name: str, code: str, read: Callable[[Home], Any], left: str
) -> None:
    file = home.root / name
    whole = file.read_bytes()
    read(home)
    file.write_bytes({"nothing": b"", "half": whole[: len(whole) // 2], "garbage": GARBAGE}[left])
    with pytest.raises(GroundplanError) as refused:
        read(home)
    assert refused.value.hint and refused.value.code == code


@pytest.mark.parametrize(
    ("left", "says"),
    [
        (b"c2lnbmF0dXJlLW9m", "its readable part names this database"),
        (b"c2lnbmF0dXJlLW9m 2026-12-0", "its readable part names this database"),
        (GARBAGE, "does not identify a database"),
    ],
)
def test_a_start_says_that_the_file_of_the_database_is_damaged_and_not_that_the_database_is_another(
    home: Home, monkeypatch: pytest.MonkeyPatch, left: bytes, says: str
) -> None:
    monkeypatch.setattr(genesis, "_first_identity", lambda *_: "c2lnbmF0dXJlLW9m 2026-12-01T00:00:00.000001Z")
    home.database.write_bytes(left)
    with pytest.raises(GroundplanError) as told:
        genesis.check_database(home, load_settings({}))
    assert told.value.code == "home_damaged" and says in told.value.message and "delete" in told.value.hint
    home.database.write_bytes(b"b3RoZXI= 2026-12-01T00:00:00.000001Z")
    with pytest.raises(GroundplanError) as told:
        genesis.check_database(home, load_settings({}))
    assert told.value.code == "database_differs"


@pytest.mark.parametrize("name", ["checkpoint.key", "blueprint.key", "blueprint.pub", "subject.key"])
def test_a_start_says_which_key_is_damaged(home: Home, name: str) -> None:
    """The control process ended for it again and again, for most of a minute."""
    prepare_home(home)
    (home.keys / name).write_bytes(b"")
    with pytest.raises(GroundplanError, match="key_damaged") as refused:
        prepare_home(home)
    assert name in refused.value.message


@pytest.mark.parametrize("content", [b"", b"\n", GARBAGE])
def test_an_operator_token_that_is_none_lets_nobody_in(home: Home, content: bytes) -> None:
    ensure_operator_token(home)
    home.operator_token.write_bytes(content)
    with pytest.raises(GroundplanError, match="operator_token"):
        ensure_operator_token(home)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"null", GARBAGE])
def test_what_only_tells_where_something_is_is_taken_for_missing(home: Home, content: bytes) -> None:
    ServiceKey(str(uuid4()), "index", "secret").write(home)
    (home.run / "endpoints.d").mkdir()
    for name in ("keys/index-service-index.json", "run/endpoints.d/search.json", "run/reload.json", "postgres/port"):
        (home.root / name).write_bytes(content)
    assert read_key(home, "index") is None and read_announcement(home, "search") is None
    assert _read_state(home) == {} and _recorded_port(home) == 0


@pytest.mark.parametrize("content", ["54", "-5432", "543212", "0"])
def test_half_of_a_port_is_none(home: Home, content: str) -> None:
    (home.postgres / "port").write_text(content)
    assert _recorded_port(home) == 0


@pytest.mark.parametrize("torn", [b"", b"{", b'{"id": 1}\n', b"\n\n", GARBAGE + b"\n"])
def test_a_line_that_was_torn_takes_no_other_along(home: Home, torn: bytes) -> None:
    whole = [uuid4(), uuid4()]
    (home.root / "erased").write_bytes(f"{whole[0]}\n".encode() + torn.replace(b" ", b"") + f"\n{whole[1]}\n".encode())
    assert erase.read_erased_list(home) == set(whole)
    stone = {
        "id": str(whole[0]), "document": str(whole[1]), "source": "s", "path": "p", "digest": "d",
        "at": "2026-01-01T00:00:00+00:00", "by": "b", "reason": "r", "due": "2026-01-01T00:00:00+00:00",
        "lifted_at": None,
    }  # fmt: skip
    (home.root / tombstones.FILE).write_bytes(torn + b"\n" + json.dumps(stone).encode() + b"\n" + torn)
    assert list(tombstones.read_tombstones(home.root)) == [whole[0]]
    run = {"at": "", "subject": "s", "figures": {}}
    (home.root / "evaluations.jsonl").write_bytes(torn.replace(GARBAGE, b"x") + b"\n" + json.dumps(run).encode())
    assert list_runs(home.root) == [run]


def test_who_was_erased_stays_so_where_home_takes_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, done = uuid4(), list[str]()
    monkeypatch.setattr(erase, "erased_in_log", lambda _: {gone})
    monkeypatch.setattr(erase, "destroy_subject_key", lambda _, who: done.append(who))
    monkeypatch.setattr("groundplan.identity.erase_store.delete_personal_data", lambda *_: None)
    monkeypatch.setattr(erase, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert erase.reapply_erasures(None, home) == 1 and done == [str(gone)]  # type: ignore[arg-type]
