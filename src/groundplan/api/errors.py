"""Exception handlers of the control API: every error becomes a response in the shape of `core.error_shape`.

Only statuses and headers; which error happens is decided elsewhere. An unexpected exception is logged with an id, and
the response has the id without the traceback.
"""

from __future__ import annotations

import errno
import json
import logging
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
_ID_HINT = "Ids look like 01a21e10-5ccc-7000-bea1-437884daa0e3; the command or page that lists them shows them."
_DATE_ERROR_TYPES = ("date_from_", "date_parsing", "datetime_from_", "datetime_parsing")
_DATE_HINTS = {"day": "Write a day like 2026-11-25.", "time": "Write a time like 2026-11-25T14:30:00Z."}

_UNREACHABLE = (
    "the database is not reachable", "database_unavailable",
    "`groundplan doctor` looks for the cause; the log of PostgreSQL tells more.",
)  # fmt: skip
_BY_SQLSTATE = {
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
"""(message, code, hint) for errors of a database that answers, by SQLSTATE."""

_EXHAUSTED_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
"""Errors of system calls where the machine has no resources left: not a bug of this program either."""
UNSTORABLE_ERRORS = (DataError, UnicodeEncodeError, OverflowError)
INFRASTRUCTURE_ERRORS = (
    OperationalError,
    ReadOnlySqlTransaction,
    UndefinedTable,
    UniqueViolation,
    PoolTimeout,
    *UNSTORABLE_ERRORS,
)
"""Exceptions that reach the routes from the database without being a bug of this program."""


def response_for(error: GroundplanError) -> JSONResponse:
    """The response for an error, with Retry-After where the error has one."""
    headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after is not None else None
    return JSONResponse(error_json(error), status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    """Register the handlers of all exceptions."""
    app.add_exception_handler(GroundplanError, on_groundplan_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_error)
    for kind in INFRASTRUCTURE_ERRORS:
        app.add_exception_handler(kind, _on_infrastructure_error)
    app.add_exception_handler(OSError, _on_os_error)
    app.add_exception_handler(Exception, _on_unexpected_error)


async def on_groundplan_error(request: Request, error: Exception) -> JSONResponse:
    """The response for a `GroundplanError`; denials are recorded in the audit log, failed sign-ins are counted."""
    assert isinstance(error, GroundplanError)
    await run_in_threadpool(denials.record_denial, request, error)
    await run_in_threadpool(request.app.state.failed_sign_ins.record_if_failed, request, error)
    return scim_response(request, response_for(error))


def scim_response(request: Request, answer: JSONResponse) -> JSONResponse:
    """The response, for SCIM routes in the error format of SCIM."""
    if not request.url.path.startswith(scim.PREFIX):
        return answer
    error_body = scim.error_json(answer.status_code, json.loads(bytes(answer.body))["error"])
    headers = {name: value for name, value in answer.headers.items() if name not in ("content-length", "content-type")}
    return JSONResponse(error_body, answer.status_code, headers, scim.MEDIA_TYPE)


async def on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    """The response for a request that does not match the schema of its route."""
    assert isinstance(error, RequestValidationError)
    problems = [_field(item) for item in error.errors()]
    return scim_response(request, JSONResponse(request_invalid(problems), status_code=422))


def _field(item: dict[str, Any]) -> dict[str, str]:
    """The problem of one field; `item` is an error of pydantic's validation."""
    name = ".".join(str(part) for part in item["loc"][1:] or item["loc"])
    if item["type"] == "uuid_parsing":
        return field_problem(f"{name}: {str(item['input'])[:40]!r} is no id", _ID_HINT)
    if item["type"].startswith(_DATE_ERROR_TYPES):
        kind = "day" if item["type"].startswith("date_") else "time"
        return field_problem(f"{name}: {str(item['input'])[:40]!r} is no {kind}", _DATE_HINTS[kind])
    return field_problem(f"{name}: {str(item['msg']).removeprefix('Value error, ')}")


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """The response for what the framework refuses by itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    code = {400: "request_invalid", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    body = {
        "message": str(error.detail),
        "type": "invalid",
        "code": code,
        "hint": "See /api/openapi.json for all routes.",
    }
    answer = JSONResponse({"error": body}, status_code=error.status_code, headers=error.headers)
    return scim_response(request, answer)


async def _on_infrastructure_error(request: Request, error: Exception) -> JSONResponse:
    return scim_response(request, response_for(translate_error(error)))


def translate_error(error: Exception) -> GroundplanError:
    """The `GroundplanError` for one of `INFRASTRUCTURE_ERRORS`."""
    if isinstance(error, UniqueViolation):
        return _conflict(error)
    return _unstorable(error) if isinstance(error, UNSTORABLE_ERRORS) else _database_error(error)


def _database_error(error: Exception) -> GroundplanError:
    message, code, hint = _BY_SQLSTATE.get(getattr(error, "sqlstate", None) or "", _UNREACHABLE)
    log.warning("%s: %s", message, error.__class__.__name__)
    if isinstance(error, UndefinedTable):  # which no later try finds
        return Misconfigured(message, code=code, hint=hint)
    return Unavailable(message, code=code, hint=hint, retry_after=2.0)


def _conflict(error: UniqueViolation) -> GroundplanError:
    """A unique constraint was violated: two concurrent requests created the same, and each had checked before. The
    second gets the conflict that it would have got a moment later."""
    log.warning("created by two requests at the same time: %s", error.diag.constraint_name)
    return Conflict(
        "a concurrent request created the same", code="made_meanwhile", hint="Nothing was changed; read it again.",
    )  # fmt: skip


def _unstorable(error: Exception) -> GroundplanError:
    """Text with a NUL or a lone surrogate, or a number or date out of range: JSON and URLs allow values that no column
    and no calendar can hold."""
    log.warning("a value of a request is refused: %s", error.__class__.__name__)
    return Invalid(
        "a value of the request cannot be stored or searched for", code="value_invalid",
        hint="Leave out NUL characters, and numbers and dates out of any range.",
    )  # fmt: skip


async def _on_os_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if error.errno not in _EXHAUSTED_ERRNOS:
        raise error
    log.warning("%s: %s", error.filename, error.strerror)
    error_body = Unavailable(
        f"{error.filename or 'a file'} cannot be used: {error.strerror}", code="file_unusable",
        hint="Check the disk of HOME, its free space, and the limit of open files; then try again.",
        retry_after=5.0,
    )  # fmt: skip
    return scim_response(request, response_for(error_body))


async def _on_unexpected_error(_: Request, error: Exception) -> JSONResponse:
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
