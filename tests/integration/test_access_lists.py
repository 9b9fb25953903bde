"""What `.acl` opens is held against the kernel: access lists on real files, opened by real users."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from groundplan.core.errors import Invalid
from groundplan.knowledge.sources.acl import parse_acl

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root opens files as other users")

USERS = {"root": 0, "ana@acme.example": 40001, "ben@acme.example": 40002, "cy@acme.example": 40003}
GROUPS = {"staff": 50001, "hr": 50002, "contractors": 50003}
NOBODY = 65534
_TAGS = {"user:": 0x01, "user": 0x02, "group:": 0x04, "group": 0x08, "mask:": 0x10, "other:": 0x20}
PYTHON = str(Path(sys.executable).resolve())
"""Itself, not the environment's link to it, which may be in a folder of root's."""
READ = """
import json, os, sys
def opens(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
        return True
    except PermissionError:
        return False
print(json.dumps([opens(path) for path in json.load(sys.stdin)]))
"""


@dataclass
class List:
    """An access list: rights (of 7) by entry; `users` and `groups` are the named ones."""

    owner: str
    group: str
    rights: dict[str, int]
    users: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def entries(self) -> list[tuple[str, str, int]]:
        found = [("user", "", self.rights["user"]), *(("user", name, n) for name, n in self.users.items())]
        found += [("group", "", self.rights["group"]), *(("group", name, n) for name, n in self.groups.items())]
        if self.users or self.groups:
            found.append(("mask", "", self.rights["mask"]))
        return [*found, ("other", "", self.rights["other"])]

    def put(self, path: Path) -> None:
        """As setfacl does."""
        os.chown(path, USERS[self.owner], GROUPS[self.group])
        ids = USERS | GROUPS
        packed = sorted(
            (_TAGS[f"{kind}:" if not name else kind], rights, ids[name] if name else 0xFFFFFFFF)
            for kind, name, rights in self.entries()
        )
        # entries of one kind go by their numbers
        packed.sort(key=lambda each: (each[0], each[2]))
        os.setxattr(
            path, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in packed)
        )

    def text(self, path: str) -> str:
        """As getfacl prints it."""
        lines = [f"# file: {path}", f"# owner: {self.owner}", f"# group: {self.group}"]
        for kind, name, rights in self.entries():
            lines.append(
                f"{kind}:{name}:" + "".join(c if rights & bit else "-" for c, bit in zip("rwx", (4, 2, 1), strict=True))
            )
        return "\n".join(lines) + "\n\n"


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="acl-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        os.setxattr(folder, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(
            struct.pack("<HHI", tag, 7, 0xFFFFFFFF) for tag in (0x01, 0x04, 0x20)
        ))  # fmt: skip
    except OSError as error:
        shutil.rmtree(folder)
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("this file system has no access lists")
        raise
    yield folder
    shutil.rmtree(folder)


def opens(paths: list[Path], user: str, groups: list[str]) -> list[bool]:
    """Whether the kernel lets that user, in those groups alone, open each file."""
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", READ], input=json.dumps([str(path) for path in paths]), text=True,
        capture_output=True, check=True, user=USERS[user], group=NOBODY, extra_groups=[GROUPS[name] for name in groups],
        cwd="/",
    )  # fmt: skip
    found: list[bool] = json.loads(done.stdout)
    return found


def ours(text: str, key: str, user: str, groups: list[str]) -> bool:
    """Whether Groundplan lets them read: named, and not refused."""
    readers = parse_acl(text).readers(key)
    assert readers is not None
    names = {user, *groups, "everyone"}
    return bool(names & readers.allow) and not names & readers.deny


PEOPLE = [
    (user, groups)
    for user in ("ana@acme.example", "ben@acme.example", "cy@acme.example")
    for groups in ([], ["staff"], ["contractors"], ["staff", "hr"], ["staff", "contractors"])
]

CASES = {
    "a group that may not, where everybody may": (
        List("root", "staff", {"user": 7, "group": 5, "mask": 5, "other": 5}),
        List("root", "staff", {"user": 6, "group": 4, "mask": 4, "other": 4}, groups={"contractors": 0}),
        ("ben@acme.example", ["contractors"]), ("ben@acme.example", ["hr"]),
    ),
    "the owning group": (
        List("root", "staff", {"user": 7, "group": 5, "other": 5}),
        List("root", "contractors", {"user": 6, "group": 0, "other": 4}),
        ("ben@acme.example", ["contractors"]), ("ben@acme.example", []),
    ),
    "the owner": (
        List("root", "staff", {"user": 7, "group": 5, "other": 5}),
        List("ana@acme.example", "hr", {"user": 2, "group": 4, "other": 4}),
        ("ana@acme.example", ["staff"]), ("ben@acme.example", ["staff"]),
    ),
    "a closed folder": (
        List("ana@acme.example", "hr", {"user": 7, "group": 0, "other": 0}),
        List("ana@acme.example", "hr", {"user": 6, "group": 4, "other": 4}),
        ("ben@acme.example", ["hr"]), ("ana@acme.example", []),
    ),
    "a folder that may be listed, not passed": (
        List("root", "staff", {"user": 7, "group": 5, "other": 4}),
        List("root", "staff", {"user": 6, "group": 4, "other": 4}),
        ("ben@acme.example", ["hr"]), ("ben@acme.example", ["staff"]),
    ),
    "a mask": (
        List("root", "staff", {"user": 7, "group": 5, "other": 5}),
        List("root", "staff", {"user": 6, "group": 4, "mask": 1, "other": 4}, groups={"hr": 6}),
        ("ben@acme.example", ["hr"]), ("ben@acme.example", []),
    ),
    "a user who may not, in a group that may": (
        List("root", "staff", {"user": 7, "group": 5, "other": 5}),
        List("root", "staff", {"user": 6, "group": 4, "mask": 4, "other": 0}, users={"ben@acme.example": 2}),
        ("ben@acme.example", ["staff"]), ("ana@acme.example", ["staff"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_files_that_the_kernel_refuses_to_open_are_refused(place: Path, case: str) -> None:
    folder, document, refused, allowed = CASES[case]
    file = place / "in/a b.md"
    file.parent.mkdir()
    file.write_text("A")
    document.put(file)
    folder.put(file.parent)
    text = folder.text("in") + document.text("in/a\\040b.md")
    for (user, groups), expected in ((refused, False), (allowed, True)):
        assert opens([file], user, groups) == [expected], "what this case is about"
        assert ours(text, "in/a b.md", user, groups) is expected


def test_no_reader_is_derived_whom_the_kernel_would_refuse(place: Path) -> None:
    """Random lists on two folders and a file, for people in several groups: never opened where it refuses, and the same
    for whoever has one name only."""
    seeded = random.Random(7)

    def made(kinds: tuple[int, ...]) -> List:
        rights = {name: seeded.choice(kinds) for name in ("user", "group", "mask", "other")}
        people = [name for name in USERS if seeded.random() < 0.3 and name != "root"]
        owner = seeded.choice(list(USERS))
        return List(
            owner, seeded.choice(list(GROUPS)), rights,
            {name: seeded.choice(kinds) for name in people if name != owner},
            {name: seeded.choice(kinds) for name in GROUPS if seeded.random() < 0.4},
        )  # fmt: skip

    texts: list[str] = []
    files: list[Path] = []
    for number in range(250):
        folders = [made((7, 7, 5, 5, 1, 4, 0)) for _ in range(2)]
        document = made((6, 4, 4, 2, 0))
        file = place / str(number) / "in/deep/a.md"
        file.parent.mkdir(parents=True)
        (place / str(number)).chmod(0o755)
        file.write_text("A")
        document.put(file)
        folders[1].put(file.parent)
        folders[0].put(file.parent.parent)
        texts.append(folders[0].text("in") + folders[1].text("in/deep") + document.text("in/deep/a.md"))
        files.append(file)
    opened = same = 0
    for user, groups in PEOPLE:
        for text, kernel in zip(texts, opens(files, user, groups), strict=True):
            mine = ours(text, "in/deep/a.md", user, groups)
            assert kernel or not mine, f"{user} in {groups} may not read\n{text}"
            opened += kernel
            same += kernel == mine
            if user not in text and not groups:
                assert kernel == mine, f"{user} in {groups} may read\n{text}"
    assert opened > 500
    assert same > 0.9 * len(PEOPLE) * len(files)


def test_denied_readers_must_be_named() -> None:
    text = "# file: a.md\nuser::---\ngroup::r--\nother::r--\n"
    with pytest.raises(Invalid, match="names no owner"):
        parse_acl(text)
