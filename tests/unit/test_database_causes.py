"""What the control API says of a database that answers, but not with what it was asked for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import cast

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from psycopg import errors as postgres
from starlette.requests import Request

from groundplan.api import errors


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (postgres.ReadOnlySqlTransaction("x"), 503, "database_read_only"),
        (postgres.DiskFull("x"), 503, "database_full"),
        (postgres.DeadlockDetected("x"), 503, "database_busy"),
        (postgres.QueryCanceled("x"), 503, "database_slow"),
        (postgres.UndefinedTable("x"), 503, "database_emptied"),
        (postgres.AdminShutdown("x"), 503, "database_unavailable"),
        (psycopg.OperationalError("x"), 503, "database_unavailable"),
        (postgres.UniqueViolation("x"), 409, "made_meanwhile"),
    ],
)
async def test_a_database_is_told_by_its_cause(error: Exception, status: int, code: str) -> None:
    app = FastAPI()
    errors.install(app)
    found = next(found for each in type(error).__mro__ if (found := app.exception_handlers.get(each)))
    handler = cast("Callable[[Request, Exception], Awaitable[JSONResponse]]", found)
    answer = await handler(Request({"type": "http", "path": "/", "headers": []}), error)
    told = json.loads(bytes(answer.body))["error"]
    assert (answer.status_code, told["code"]) == (status, code) and told["hint"]
    assert ("retry-after" in answer.headers) == (status == 503 and code != "database_emptied")
