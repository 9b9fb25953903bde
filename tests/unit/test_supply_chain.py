"""What is installed is what was chosen: each package in one version, by the digests of its files, none built here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(
    r"([a-z0-9][a-z0-9._-]*)(\[[a-z0-9,._-]+\])?==(\S+)( ; [^;]*?)?( --hash=sha256:[0-9a-f]{64})+", re.IGNORECASE
)


def lines(lock: Path) -> list[str]:
    """Each with what it goes on with; no comments."""
    whole = re.sub(r"\s*\\\n\s*", " ", lock.read_text())
    return [line for line in whole.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_package_is_pinned_to_one_version_and_its_digests(lock: Path) -> None:
    found = lines(lock)
    assert [line for line in found if not PIN.fullmatch(line)] == []
    named = [(name_of(line), line.partition(" --hash")[0].partition(" ; ")[2]) for line in found]
    assert 0 < len(named) == len(set(named)), "one version for each kind of machine"


def test_the_packages_that_are_asked_for_are_among_them() -> None:
    locked = {name_of(line) for lock in LOCKS for line in lines(lock)}
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {name_of(each) for each in asked} <= locked


def test_only_what_has_these_digests_is_installed_and_nothing_is_built() -> None:
    for script in ("setup.sh", "clients.sh"):
        whole = (ROOT / "scripts" / script).read_text().replace("\\\n", " ")
        found = [line for line in whole.splitlines() if "pip install" in line and " -r " in line]
        assert found and all("--require-hashes" in line and "--only-binary :all:" in line for line in found)
        assert all("--no-deps" in line for line in found), "pip 23.2 refuses a lock with extras if it resolves it"
