"""A stop of a key covers every key of its line of rotations, in whatever form its id was written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from groundplan.cli.main import app
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Denied, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.call.admit import check_kills
from groundplan.gateway.call.key_by_id import KeysById
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.policy.snapshot import EMPTY_POLICY, KeyEntry
from groundplan.gateway.policy.stopped_keys import StoppedKeys, with_lines
from groundplan.identity import kill_file
from groundplan.identity.model import canonical_scope


def entry(id: str, line: frozenset[str] = frozenset()) -> KeyEntry:
    return KeyEntry(
        id=id, workload="w", person="", acts_for_others=False, revoked=False, expires=None,
        family=min(line, default=id), line=line,
    )  # fmt: skip


FIRST, SECOND, OTHER = (f"01936f00-0000-7000-8000-00000000000{end}" for end in "abc")
LINE = frozenset({FIRST, SECOND})
KEYS = {b"1": entry(FIRST, LINE), b"2": entry(SECOND, LINE), b"3": entry(OTHER)}


@pytest.mark.parametrize("named", [FIRST, SECOND])
def test_the_predecessors_and_successors_of_a_stopped_key_are_stopped(named: str) -> None:
    found = with_lines(frozenset({f"key/{named}", "site/s"}), KEYS)
    assert found == {f"key/{FIRST}", f"key/{SECOND}", "site/s"}


def test_keys_outside_the_line_and_other_scopes_are_unaffected() -> None:
    scopes = frozenset({"workload/w", f"workload/{FIRST}"})
    assert with_lines(scopes, KEYS) is scopes
    assert with_lines(frozenset({f"key/{OTHER}"}), KEYS) == {f"key/{OTHER}"}


def test_a_line_is_found_again_once_the_keys_have_changed() -> None:
    stopped, scopes = StoppedKeys(), frozenset({f"key/{FIRST}"})
    assert stopped.with_lines(scopes, {b"1": entry(FIRST)}) == scopes
    assert stopped.with_lines(scopes, KEYS) == {f"key/{FIRST}", f"key/{SECOND}"}


def test_a_batch_of_a_stopped_key_does_not_go_on_with_its_successor() -> None:
    keys = {**KEYS, b"1": dataclasses.replace(KEYS[b"1"], expires=1.0)}
    policy = dataclasses.replace(EMPTY_POLICY, keys=keys, kills=with_lines(frozenset({f"key/{FIRST}"}), keys))
    key = KeysById().living(policy, UUID(FIRST), "", 2.0)
    assert key.id == SECOND
    with pytest.raises(Denied):
        check_kills(policy, key, "w")


@pytest.mark.parametrize("written", [FIRST.upper(), FIRST.replace("-", ""), f"{{{FIRST}}}"])
def test_a_stop_written_without_postgresql_covers_the_line(tmp_path: Path, written: str) -> None:
    home = Home(tmp_path)
    home.run.mkdir()
    live = LiveView("postgresql://127.0.0.1:1/none", home, new_id(), SystemClock(), Slices())
    live.policy = dataclasses.replace(live.policy, keys=KEYS)
    # as a command of an earlier version wrote it
    kill_file.kill_file_path(home).write_text(json.dumps([{"scope": f"key/{written}", "reason": "leak", "at": ""}]))
    live.read_kill_file()
    for each in (KEYS[b"1"], KEYS[b"2"]):
        with pytest.raises(Denied) as refused:
            check_kills(live.policy, each, "w")
        assert refused.value.code == "killed"
    check_kills(live.policy, KEYS[b"3"], "w")
    kill_file.kill_file_path(home).unlink()
    live.read_kill_file()
    assert not live.policy.kills


def test_the_command_writes_the_id_in_one_form(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.run.mkdir()
    command = ["kill", f"key/{FIRST.upper()}", "-m", "leak", "--offline", "--home", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == Unavailable.exit_code, "not acknowledged by anybody"
    assert [each["scope"] for each in kill_file.read_kills(home)] == [f"key/{FIRST}"]


def test_scopes_of_keys_have_one_form() -> None:
    assert canonical_scope(f"key/{FIRST.upper()}") == canonical_scope(f"key/{FIRST}") == f"key/{FIRST}"
    assert [canonical_scope(each) for each in ("company", "key/x", "model/A/B")] == ["company", "key/x", "model/A/B"]
