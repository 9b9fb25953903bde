"""What is installed with the product is what it uses."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ_BY_PYTHON = {"tzdata"}
"""Without being named: what `zoneinfo` looks in where the system has no time zones, as small images have none."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_each_dependency_is_named_in_the_code() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    code = "\n".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    modules: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(canonical(distribution), set()).add(module)
    for line in declared:
        name = re.split(r"[\[<>=]", line)[0]
        if name in READ_BY_PYTHON:
            continue
        known = "|".join(map(re.escape, modules[canonical(name)]))
        assert re.search(rf"\b(?:import|from) (?:{known})\b|\"(?:{known})[\".]", code), f"nothing uses {name}"


def test_azures_client_comes_with_what_it_asks_by() -> None:
    """Its own package names that nowhere, and neither does the library; Google's client uses it where it is there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(re.split(r"[\[<>=]", line)[0] == "aiohttp" for line in extras["providers"])


def test_time_zones_come_with_the_product() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[\[<>=]", line)[0] for line in declared} >= READ_BY_PYTHON
