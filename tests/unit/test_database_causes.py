"""What the control API says of a database that answers, but not with what it was asked for."""

from __future__ import annotations

import json
from typing import cast

import psycopg
import pytest
from fastapi import FastAPI
from psycopg import errors as postgres
from starlette.requests import Request

from groundplan.api import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (postgres.ReadOnlySqlTransaction("x"), "database_read_only"),
        (postgres.DiskFull("x"), "database_full"),
        (postgres.QueryCanceled("x"), "database_slow"),
        (postgres.AdminShutdown("x"), "database_unavailable"),
        (psycopg.OperationalError("x"), "database_unavailable"),
    ],
)
async def test_a_database_is_told_by_its_cause(error: Exception, code: str) -> None:
    app = FastAPI()
    errors.install(app)
    found = next(found for each in type(error).__mro__ if (found := app.exception_handlers.get(each)))
    answer = await cast(errors.Handler, found)(Request({"type": "http"}), error)
    told = json.loads(bytes(answer.body))["error"]
    assert (answer.status_code, told["code"]) == (503, code) and told["hint"]
