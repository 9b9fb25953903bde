"""Errors as answers of the control API, in the shape of `core.error_shape`.

Only statuses and headers; which error happens is decided elsewhere. An unknown exception is logged
with an id and told without its trace.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import DataError, OperationalError
from psycopg.errors import ReadOnlySqlTransaction, UndefinedTable, UniqueViolation
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException

from groundplan.api.audit import denials
from groundplan.core.error_shape import error_json, field_problem, request_invalid
from groundplan.core.errors import Conflict, GroundplanError, Invalid, Misconfigured, Unavailable
from groundplan.core.ids import new_id
from groundplan.identity.scim import resources as scim

log = logging.getLogger("groundplan.api")
Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]
_ID = "Ids look like 01a21e10-5ccc-7000-bea1-437884daa0e3; the command or page that lists them shows them."
_UNREAD = ("date_from_", "date_parsing", "datetime_from_", "datetime_parsing")
_TIMES = {"day": "Write a day like 2026-11-25.", "time": "Write a time like 2026-11-25T14:30:00Z."}

_AWAY = (
    "the database is not reachable", "database_unavailable",
    "`groundplan doctor` looks for the cause; the log of PostgreSQL tells more.",
)  # fmt: skip
_CAUSES = {
    "25006": (
        "the database may not be written to", "database_read_only",
        "It is a standby, or was made read-only, as where its disk is full: `groundplan doctor` tells which.",
    ),
    "42P01": (
        "the database lacks tables of this program", "database_emptied",
        "It was emptied, or made anew, while this runs: stop `groundplan up`, then `groundplan restore` a backup into "
        "a new HOME. This one keeps its keys, its audit log, and in `journal` the calls that no ledger has yet.",
    ),
    "53100": ("the disk of PostgreSQL is full", "database_full", "Make room there; everything goes on then."),
    "40P01": (
        "another change waited for this one, and this one for it", "database_busy",
        "Nothing was changed; ask again. Where it comes again and again, the log of PostgreSQL has both statements.",
    ),
    "57014": (
        "PostgreSQL ended a statement that took longer than it allows", "database_slow",
        "Ask again, for less where you can; statement_timeout of the login, or its database, says how long it allows.",
    ),
}  # fmt: skip
"""What a server that answers says of itself, by SQLSTATE."""

_OF_THE_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
"""What a system call fails with where the machine has no more to give, which is no fault of ours either."""
UNSTORABLE = (DataError, UnicodeEncodeError, OverflowError)
KNOWN = (OperationalError, ReadOnlySqlTransaction, UndefinedTable, UniqueViolation, PoolTimeout, *UNSTORABLE)
"""What is raised below the routes and is no fault of ours."""


def response_for(error: GroundplanError) -> JSONResponse:
    """The answer for an error, with Retry-After where it says when."""
    headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after is not None else None
    return JSONResponse(error_json(error), status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    """Register the handlers of all errors."""
    app.add_exception_handler(GroundplanError, told)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http_error)
    for each in KNOWN:
        app.add_exception_handler(each, _known)
    app.add_exception_handler(OSError, _refused_by_the_machine)
    app.add_exception_handler(Exception, _unknown)


async def told(request: Request, error: Exception) -> JSONResponse:
    """The answer for an error on purpose; a denial is in the audit log."""
    assert isinstance(error, GroundplanError)
    await run_in_threadpool(denials.note, request, error)
    await run_in_threadpool(request.app.state.failed_sign_ins.note, request, error)
    return spoken(request, response_for(error))


def spoken(request: Request, answer: JSONResponse) -> JSONResponse:
    """The same for a directory, which reads errors in the words of SCIM."""
    if not request.url.path.startswith(scim.PREFIX):
        return answer
    told = scim.error_json(answer.status_code, json.loads(bytes(answer.body))["error"])
    headers = {name: value for name, value in answer.headers.items() if name not in ("content-length", "content-type")}
    return JSONResponse(told, answer.status_code, headers, scim.MEDIA_TYPE)


async def malformed(request: Request, error: Exception) -> JSONResponse:
    """The answer for a request that does not fit its description."""
    assert isinstance(error, RequestValidationError)
    problems = [_field(item) for item in error.errors()]
    return spoken(request, JSONResponse(request_invalid(problems), status_code=422))


def _field(item: dict[str, Any]) -> dict[str, str]:
    """One field that does not fit; `item` is what validation says of it."""
    name = ".".join(str(part) for part in item["loc"][1:] or item["loc"])
    if item["type"] == "uuid_parsing":
        return field_problem(f"{name}: {str(item['input'])[:40]!r} is no id", _ID)
    if item["type"].startswith(_UNREAD):
        kind = "day" if item["type"].startswith("date_") else "time"
        return field_problem(f"{name}: {str(item['input'])[:40]!r} is no {kind}", _TIMES[kind])
    return field_problem(f"{name}: {item['msg']}")


async def http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    code = {400: "request_invalid", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    body = {
        "message": str(error.detail),
        "type": "invalid",
        "code": code,
        "hint": "See /api/openapi.json for all routes.",
    }
    answer = JSONResponse({"error": body}, status_code=error.status_code, headers=error.headers)
    return spoken(request, answer)


async def _known(request: Request, error: Exception) -> JSONResponse:
    return spoken(request, response_for(known(error)))


def known(error: Exception) -> GroundplanError:
    """What one of `KNOWN` means to whoever asked."""
    if isinstance(error, UniqueViolation):
        return _twice(error)
    return _unstorable(error) if isinstance(error, UNSTORABLE) else _database(error)


def _database(error: Exception) -> GroundplanError:
    message, code, hint = _CAUSES.get(getattr(error, "sqlstate", None) or "", _AWAY)
    log.warning("%s: %s", message, error.__class__.__name__)
    if isinstance(error, UndefinedTable):  # which no later try finds
        return Misconfigured(message, code=code, hint=hint)
    return Unavailable(message, code=code, hint=hint, retry_after=2.0)


def _twice(error: UniqueViolation) -> GroundplanError:
    """Two asked for the same at the same moment, and each had looked before: the second is told what it would be told a
    moment later."""
    log.warning("made twice at the same time: %s", error.diag.constraint_name)
    return Conflict(
        "somebody else made the same at this moment", code="made_meanwhile", hint="Nothing was changed; look again.",
    )  # fmt: skip


def _unstorable(error: Exception) -> GroundplanError:
    """Text with a NUL or half a character, a number or a day beyond every range: JSON and URLs may hold what no column
    and no calendar does."""
    log.warning("a value of a request is refused: %s", error.__class__.__name__)
    return Invalid(
        "a value of the request cannot be stored or looked for", code="value_invalid",
        hint="Leave out NUL characters, and numbers and dates out of any range.",
    )  # fmt: skip


async def _refused_by_the_machine(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if error.errno not in _OF_THE_MACHINE:
        raise error
    log.warning("%s: %s", error.filename, error.strerror)
    told = Unavailable(
        f"{error.filename or 'a file'} cannot be used: {error.strerror}", code="file_unusable",
        hint="Look at the disk of HOME and at its free space, and how many files may be open; then ask again.",
        retry_after=5.0,
    )  # fmt: skip
    return spoken(request, response_for(told))


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    incident = str(new_id())
    log.error("unexpected error %s", incident, exc_info=error)
    body = {
        "message": "something unexpected happened",
        "type": "internal",
        "code": "internal",
        "hint": f"Look for {incident} in HOME/logs/control.log.",
        "id": incident,
    }
    return JSONResponse({"error": body}, status_code=500)
