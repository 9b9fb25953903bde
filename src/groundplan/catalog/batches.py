"""What a workload declares about its batches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from groundplan.catalog.base import Strict


class BatchRule(Strict):
    """How much of a batch is made at the same time, behind all calls that somebody waits for."""

    concurrent: Annotated[int, Field(ge=1, le=256)] = 4
    """Calls of one batch that one gateway worker makes at the same time."""
