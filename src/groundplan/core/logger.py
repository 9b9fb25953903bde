"""structlog's loggers, whose events are written as `logs` writes those of `logging`.

Apart from `logs`, because to load structlog takes as long as half of a gateway worker: a process that is to be there
again within a moment uses `logging`. Import `get_logger` from here and structlog is set up.
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
    """A line that cannot be written, as on a full disk, is lost, as it is with `logging`: no work ends with it."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = error = err = critical = fatal = exception = failure = msg


structlog.configure(
    processors=[structlog.processors.format_exc_info, _render],
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    logger_factory=lambda *_: _Stderr(sys.stderr),  # that of the moment, which tests replace
)
