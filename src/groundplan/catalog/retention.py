"""What a workload declares about keeping prompts and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Duration, Share

DAY_MS = 86_400_000


def _time(milliseconds: int) -> int:
    if not 60_000 <= milliseconds <= 3660 * DAY_MS:
        raise ValueError("write from 1min to 3660d")
    return milliseconds


class KeepRule(Strict):
    """Whether prompts and answers are kept, to be read by those who engineer, operate or secure the workload."""

    content: Literal["none", "redacted", "full"] = "none"
    """redacted: without personal data and secrets of known patterns. Restricted data is kept only if approved."""
    for_: Annotated[Duration, AfterValidator(_time), Field(alias="for")] = 30 * DAY_MS
    """Time until deletion."""
    share: Share = 1.0
    """Of which part of the calls, chosen by chance."""
