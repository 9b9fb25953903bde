"""structlog's loggers, which write the same format as `logs`. Importing `get_logger` from here sets structlog up.

Separate from `logs`, because importing structlog takes half as long as importing a gateway worker: processes that must
restart quickly use `logging`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog

from groundplan.core import logs

get_logger = structlog.get_logger


def _render(_: Any, name: str, event: MutableMapping[str, Any]) -> str:
    fields = dict(event)
    told, process = str(fields.pop("event", "")), logs.process_name()
    return logs.format_line(datetime.now(UTC), name, process, process, told, fields)


class _Stderr(structlog.PrintLogger):
    """Drops lines that cannot be written, as on a full disk, like `logging` does, instead of failing the caller."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = error = err = critical = fatal = exception = failure = msg


structlog.configure(
    processors=[structlog.processors.format_exc_info, _render],
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    logger_factory=lambda *_: _Stderr(sys.stderr),  # that of the moment, which tests replace
)
