"""Announcements of local services: private, whole, and gone with their process."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.cli.client import find_running
from groundplan.core import endpoints
from groundplan.core.endpoints import announce, announce_retrying, listen_locally, lookup, withdraw
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.runtime.supervisor import Supervisor


def test_who_cannot_be_announced_yet_is_so_as_soon_as_the_disk_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "RETRY_SECONDS", 0.01)
    (tmp_path / "run").touch()
    announce_retrying(Home(tmp_path), "search", "http://127.0.0.1:4242", "secret", stop := threading.Event())
    assert lookup(Home(tmp_path), "search") is None
    (tmp_path / "run").unlink()
    end = time.monotonic() + 20
    while lookup(Home(tmp_path), "search") is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    stop.set()


def test_what_is_announced_is_found_and_private(tmp_path: Path) -> None:
    home = Home(tmp_path)
    announce(home, "search", "http://127.0.0.1:4242/", "secret")
    found = lookup(home, "search")
    assert found is not None
    assert (found.url, found.token, found.pid) == ("http://127.0.0.1:4242", "secret", os.getpid())
    path = tmp_path / "run" / "endpoints.d" / "search.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert found.name == "search"


def test_a_copy_of_a_home_that_is_in_use_tells_of_none_of_its_processes(tmp_path: Path) -> None:
    home, copied = Home(tmp_path / "home"), Home(tmp_path / "copy")
    home.create()
    announce(home, "search", "http://127.0.0.1:9", "secret")
    Supervisor(home).announce("http://127.0.0.1:1/v1", "http://127.0.0.1:2")
    (tmp_path / "other-name").symlink_to(home.root)
    shutil.copytree(home.root, copied.root)
    for where, found in ((home, True), (Home(tmp_path / "other-name"), True), (copied, False)):
        assert (lookup(where, "search") is not None) is found and (find_running(where) is not None) is found


def test_an_announcement_ends_with_its_process_or_its_withdrawal(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from groundplan.core.home import Home\n"
        "from groundplan.core.endpoints import announce; announce(Home(Path(sys.argv[1])), 'embedded', 'http://x', 't')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    home = Home(tmp_path)
    assert (tmp_path / "run" / "endpoints.d" / "embedded.json").exists()
    assert lookup(home, "embedded") is None
    announce(home, "embedded", "http://y", "t")
    withdraw(home, "embedded")
    assert lookup(home, "embedded") is None


def test_whoever_ends_on_a_disk_that_is_read_only_by_then_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    announce(home := Home(tmp_path), "search", "http://127.0.0.1:4242", "secret")
    monkeypatch.setattr(Path, "unlink", refused)
    withdraw(home, "search")


def test_whoever_got_the_number_of_a_service_that_was_killed_is_not_asked_in_its_place(tmp_path: Path) -> None:
    """As in a container that is started again: processes get the numbers of those before them."""
    home = Home(tmp_path)
    announce(home, "search", "http://127.0.0.1:4242", "secret")
    path = tmp_path / "run" / "endpoints.d" / "search.json"
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps(told | {"began": "1"}))
    assert lookup(home, "search") is None
    del told["began"]  # as those announce that were started before an update
    path.write_text(json.dumps(told))
    assert lookup(home, "search") is not None


@pytest.mark.parametrize("name", ["", "../up", "Search", "a/b", "-x", "x" * 64])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="service_name"):
        announce(Home(tmp_path), name, "http://x", "t")


@given(st.binary(max_size=200))
def test_a_damaged_announcement_counts_as_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    home = Home(tmp_path_factory.getbasetemp() / "damaged")
    folder = home.run / "endpoints.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.json").write_bytes(data)
    assert lookup(home, "search") is None


def test_what_is_written_to_a_local_connection_goes_out_at_once() -> None:
    with listen_locally() as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
