"""What a workload declares about its batches and files."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Size


class BatchRule(Strict):
    """How much of a batch is made at the same time, behind all calls that somebody waits for."""

    concurrent: Annotated[int, Field(ge=1, le=256)] = 4
    """Calls of one batch that one gateway worker makes at the same time."""


class FileRule(Strict):
    """How much files take that its keys upload, or that its batches make."""

    max_size: Size | None = None
    """All of them together; what would be more is not taken. Default: half of what the disk has for files."""
