"""The file of what is stopped where the control API does not answer: nothing that is stopped by it ever gets lost."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from groundplan.api import background
from groundplan.cli import kill
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.policy.live import LiveView
from groundplan.identity import kill_file


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


class Taking:
    """A control process that takes kills over, into a policy that is a list."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.policy: list[str] = []

    def transaction(self) -> Any:
        return nullcontext(None)


def test_a_kill_written_during_the_import_stays_in_force(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control process whose database is slow does not answer, so it is by this file that things are stopped then."""
    services: Any = Taking(home)

    def killed(_: Any, actor: str, scope: str, reason: str) -> None:
        services.policy.append(scope)
        if scope == "workload/first":
            kill._kill_offline(home, "workload/second", "leak")

    monkeypatch.setattr("groundplan.identity.service.kill", killed)
    kill._kill_offline(home, "workload/first", "leak")
    assert background.import_offline_kills(services) == 1
    assert [each["scope"] for each in kill_file.read_kills(home)] == ["workload/second"]
    assert background.import_offline_kills(services) == 1
    assert services.policy == ["workload/first", "workload/second"]
    assert not kill_file.kill_file_path(home).exists() and background.import_offline_kills(services) == 0


@pytest.mark.parametrize("content", [b"", b"[{", b"{}", b'[{"reason": "leak"}]', b"\xff"])
def test_a_damaged_kill_file_is_not_overwritten(home: Home, content: bytes) -> None:
    file = kill_file.kill_file_path(home)
    file.write_bytes(content)
    with pytest.raises(Unavailable, match="may stop something already") as refused:
        kill._kill_offline(home, "workload/assistant", "leak")
    assert refused.value.code == "kill_unwritten" and refused.value.hint
    assert file.read_bytes() == content
    assert background.import_offline_kills(Taking(home)) == 0, "and it is there for whoever puts it right"  # type: ignore[arg-type]


def test_a_briefly_unreadable_kill_file_is_not_overwritten(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kill._kill_offline(home, "workload/assistant", "leak")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(Unavailable, match="Input/output error"):
            kill._kill_offline(home, "company", "leak")
    assert [each["scope"] for each in kill_file.read_kills(home)] == ["workload/assistant"]


def test_a_worker_that_could_never_read_the_kill_file_serves_nothing(home: Home) -> None:
    file = kill_file.kill_file_path(home)
    file.write_text("[{")
    live = LiveView("postgresql://127.0.0.1:1/none", home, new_id(), SystemClock(), Slices())
    live.read_kill_file()
    assert live.policy.kills == {"company"}
    file.write_text('[{"scope": "workload/assistant"}]')
    live.read_kill_file()
    file.write_text("")
    live.read_kill_file()
    assert live.policy.kills == {"workload/assistant"}, "what was read last holds"
    file.unlink()
    live.read_kill_file()
    assert not live.policy.kills


def test_concurrently_written_kills_are_all_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    written = kill_file._write

    def slowly(*given: Any) -> None:
        time.sleep(0.005)
        written(*given)

    monkeypatch.setattr(kill_file, "_write", slowly)
    scopes = [f"workload/w{number}" for number in range(12)]
    writing = [threading.Thread(target=kill._kill_offline, args=(home, scope, "leak")) for scope in scopes]
    for each in writing:
        each.start()
    for each in writing:
        each.join()
    assert sorted(each["scope"] for each in kill_file.read_kills(home)) == sorted(scopes)


def test_the_import_of_kills_waits_for_writers(home: Home) -> None:
    kills = [{"scope": f"workload/w{number}", "reason": "leak"} for number in range(2)]
    folder = os.open(home.run, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        kill_file._write(home, kills[:1])
        taking = threading.Thread(target=kill_file.remove_kills, args=(home, kills[:1]))
        taking.start()
        time.sleep(0.05)
        kill_file._write(home, kills)
    finally:
        os.close(folder)
    taking.join()
    assert kill_file.read_kills(home) == kills[1:]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_a_kill_file_written_by_root_is_readable_for_workers(home: Home) -> None:
    os.chown(home.run, 12_345, 12_345)
    kill._kill_offline(home, "company", "leak")
    assert kill_file.kill_file_path(home).stat().st_uid == 12_345


def test_a_stopped_process_does_not_block_writing_a_kill(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill_file, "LOCK_TIMEOUT", 0.05)
    folder = os.open(home.run, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        assert kill._kill_offline(home, "company", "leak")["file"] == str(kill_file.kill_file_path(home))
    finally:
        os.close(folder)
