"""Environment variables that look like settings of Groundplan and that nothing reads: they have no effect."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from groundplan.core.errors import Problem
from groundplan.core.settings import PREFIX, VARIABLE_NAMES, unknown_variables


def misspelt_settings(environment: Mapping[str, str] | None = None) -> list[Problem]:
    """Those that are named almost as one of ours. Others that begin alike may be anybody's, as what Kubernetes sets for
    a service of that name."""
    return [
        Problem(
            f"the variable {name} has no effect: nothing reads it",
            "setting_unknown",
            f"Write {PREFIX}{close}, or take it out.",
        )
        for name in unknown_variables(environment)
        for close in get_close_matches(name.removeprefix(PREFIX), VARIABLE_NAMES, n=1, cutoff=0.8)
    ]
