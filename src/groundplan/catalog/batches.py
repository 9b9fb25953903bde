"""What a workload declares about its batches and files."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Size


class BatchRule(Strict):
    """Concurrency of a batch, whose calls come after all interactive ones."""

    concurrent: Annotated[int, Field(ge=1, le=256)] = 4
    """Concurrent calls of one batch in one gateway worker."""


class FileRule(Strict):
    """How much files take that its keys upload, or that its batches make."""

    max_size: Size | None = None
    """Total size; uploads beyond it are refused. Default: half of the disk space for files."""
