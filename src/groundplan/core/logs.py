"""The log format of all processes: one JSON object a line, safe to read and to ship.

Foreign text (a path, a header, an upstream's message) becomes a JSON string, so that its control characters and line
breaks cannot get into a log; keys, tokens and passwords in it are redacted. Prompts and answers are never logged, and
gateways log no requests: those are in the journal. `logger` has structlog's loggers, which write the same format.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from groundplan.core.detect import SECRETS, Found, find

MAX_CHARACTERS = 4000
"""Longer values are shortened."""
_HIDDEN = frozenset({"authorization", "password", "secret", "token", "api_key", "cookie"})
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Of an object, as Python shows one."""
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLinesFormatter(logging.Formatter):
    """`logging` records as one JSON object a line: time, level, process, logger, event, and `extra` fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        at = datetime.fromtimestamp(record.created, UTC)
        return format_line(at, record.levelname, self.process, record.name, record.getMessage(), fields)


def format_line(at: datetime, level: str, process: str, logger: str, event: str, fields: Mapping[str, Any]) -> str:
    """One event, in ASCII, without its line break."""
    body = {
        "at": at.isoformat(timespec="milliseconds"),
        "level": level.lower(),
        "process": process,
        "logger": logger,
        "event": clean_value(event),
    }
    for name, value in fields.items():
        body.setdefault(name, "[hidden]" if name.lower() in _HIDDEN else clean_value(value))
    return json.dumps(body, ensure_ascii=True, default=str)


def clean_value(value: Any) -> Any:
    """Make a value safe to log: secrets are removed from text and long text is shortened; numbers stay."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if len(text) <= MAX_CHARACTERS:
        return redact_secrets(text)
    # the end of a traceback says what went wrong; more text is searched than is kept, since a secret may be cut in half
    first, last = MAX_CHARACTERS // 4, MAX_CHARACTERS * 3 // 4
    begin = redact_secrets(text[: first + MAX_CHARACTERS])[:first]
    end = redact_secrets(text[-last - MAX_CHARACTERS :])[-last:]
    return f"{begin} ... ({len(text)} characters) ... {end}"


def redact_secrets(text: str) -> str:
    """Replace what looks like a key, a token, or a password in a URL by `[kind]`."""
    for found in reversed([one for one in find(text, (_find_passwords,)) if one.kind in (*SECRETS, "password")]):
        text = f"{text[: found.start]}[{found.kind}]{text[found.end :]}"
    return text


def _find_passwords(text: str) -> list[Found]:
    """Find passwords in URLs: the part of `scheme://user:password@` between colon and at sign."""
    found: list[Found] = []
    at = 0
    while (begin := text.find("://", at)) >= 0:
        end = begin + 3
        while end < len(text) and text[end] not in " /?#\"'\n\r\t<>":
            end += 1
        user, colon, password = text[begin + 3 : end].rpartition("@")[0].partition(":")
        if colon and password:
            start = begin + 3 + len(user) + 1
            found.append(Found(start, start + len(password), "password"))
        at = end
    return found


def process_name() -> str:
    """The name of this process in its logs."""
    named = (handler.formatter for handler in logging.getLogger().handlers)
    return next((lines.process for lines in named if isinstance(lines, JsonLinesFormatter)), "groundplan")


_LIBRARY_LEVELS = {
    "httpx": logging.WARNING, "websockets": logging.WARNING, "python_multipart": logging.ERROR,
    "opentelemetry": logging.CRITICAL,
}  # fmt: skip
"""Minimum level for libraries that log every request, or every invalid or failed one: requests are in the ledger, and
callers get the error, so that logs need not grow with either. `trace_export` logs when a collector begins to fail."""


_REPEATED_BY = ("psycopg", "groundplan.api")
"""Loggers that warn at each failed try, by the second while PostgreSQL is away."""
_REPEATED_S = 600.0
_MAX_REMEMBERED = 1000


class RepeatedWarnings(logging.Filter):
    """Drops a warning of `_REPEATED_BY` that was logged within the last ten minutes."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING or not f"{record.name}.".startswith(tuple(f"{n}." for n in _REPEATED_BY)):
            return True
        text = _ADDRESS.sub("", record.getMessage())
        if record.created < self._logged_at.get(text, -_REPEATED_S) + _REPEATED_S:
            return False
        if len(self._logged_at) >= _MAX_REMEMBERED:
            self._logged_at.clear()
        self._logged_at[text] = record.created
        return True


def configure(process: str) -> None:
    """Send `logging` of this process to stderr as JSON lines. Call it once, at its start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLinesFormatter(process))
    handler.addFilter(RepeatedWarnings())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name, least in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(least)
