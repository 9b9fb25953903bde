"""Sensitivity and stage: the two ladders that everything declared stands on."""

from __future__ import annotations

from typing import Literal

SENSITIVITIES = ("public", "internal", "confidential", "restricted")
"""From least to most; compare with `sensitivity_rank`."""
SERVED_STAGES = ("experiment", "pilot", "production")
EVERYONE = "everyone"
"""The group that every active person is in without being listed."""
PUBLIC = "public"
"""As a reader: everybody, also a call that carries no person. Nobody declares it."""

Sensitivity = Literal["public", "internal", "confidential", "restricted"]
Stage = Literal["proposed", "experiment", "pilot", "production", "retired"]


def sensitivity_rank(sensitivity: str) -> int:
    """0 for public to 3 for restricted."""
    return SENSITIVITIES.index(sensitivity)
