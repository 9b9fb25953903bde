"""Environment variables that look like misspelt settings of Groundplan and have no effect."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from groundplan.core.errors import Problem
from groundplan.core.settings import PREFIX, VARIABLE_NAMES, unknown_variables


def misspelt_settings(environment: Mapping[str, str] | None = None) -> list[Problem]:
    """Problems for variables whose names are close to that of a setting. Others with the same prefix may belong to
    anybody, such as those that Kubernetes sets for a service of that name."""
    return [
        Problem(
            f"the variable {name} has no effect: nothing reads it",
            "setting_unknown",
            f"Write {PREFIX}{close}, or remove it.",
        )
        for name in unknown_variables(environment)
        for close in get_close_matches(name.removeprefix(PREFIX), VARIABLE_NAMES, n=1, cutoff=0.8)
    ]
