"""The key files of HOME."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from groundplan.core.audit.keys import SIGNING_KEYS, create_keys, load_private, load_public, load_wrapping
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home, is_readable_by_others


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    return home


def test_keys_are_private_files_that_belong_together(home: Home) -> None:
    for name in SIGNING_KEYS:
        load_public(home, name).verify(load_private(home, name).sign(b"text"), b"text")
    assert len(load_wrapping(home)) == 64
    assert {path.stat().st_mode & 0o777 for path in home.keys.iterdir()} == {0o600}


def test_a_second_start_keeps_them(home: Home) -> None:
    before = {path.name: path.read_bytes() for path in home.keys.iterdir()}
    create_keys(home)
    assert {path.name: path.read_bytes() for path in home.keys.iterdir()} == before


def test_a_key_is_not_called_damaged_that_could_not_be_opened(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the process may have no more files open: a backup would help nobody."""

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", none_left)
    with pytest.raises(Unavailable, match="Too many open files") as caught:
        load_private(home, "checkpoint")
    assert caught.value.code == "key_unreadable" and "backup" not in caught.value.hint


def test_a_lost_public_half_is_made_again(home: Home) -> None:
    before = (home.keys / "blueprint.pub").read_bytes()
    (home.keys / "blueprint.pub").unlink()
    create_keys(home)
    assert (home.keys / "blueprint.pub").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [
        (None, 0, "key_missing"),
        (b"AAAA\n", 0o644, "key_unsafe"),
        (b"AAAA\n", 0o600, "key_damaged"),
        (b"\xff?", 0o600, "key_damaged"),
    ],
)
def test_a_bad_key_file_is_refused_with_what_to_do(home: Home, content: bytes | None, mode: int, code: str) -> None:
    path = home.keys / "checkpoint.key"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(Unavailable) as caught:
        load_private(home, "checkpoint")
    assert caught.value.code == code and caught.value.hint


@pytest.mark.parametrize(
    ("mode", "owner", "user", "open_to_others"),
    [
        (0o600, 1000, 1000, False),
        (0o640, 1000, 1000, True),
        (0o440, 0, 1000, False),  # as a secret of Kubernetes comes to a user that is not root
        (0o640, 0, 1000, False),
        (0o660, 0, 1000, True),
        (0o444, 0, 1000, True),
        (0o640, 0, 0, True),
    ],
)
def test_a_group_that_root_has_let_in_may_read_a_secret(mode: int, owner: int, user: int, open_to_others: bool) -> None:
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 1000, 1, 0, 0, 0))
    assert is_readable_by_others(status, user) is open_to_others
