"""Errors as JSON the way everything under /api tells them, on the control port and on the gateway's:
`{"error": {"message", "type", "code", "hint", "where"?, "problems"?, "details"?}}`.

Shapes only; statuses and headers are the servers' own.
"""

from __future__ import annotations

from typing import Any

from groundplan.core.errors import GroundplanError, Problem


def problem_json(problem: Problem) -> dict[str, Any]:
    """One problem; `where` is `file:line:column` or absent."""
    body: dict[str, Any] = {"message": problem.message, "code": problem.code, "hint": problem.hint}
    if problem.where is not None:
        body["where"] = str(problem.where)
    return body


def error_json(error: GroundplanError) -> dict[str, Any]:
    """The whole body of an error."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": type(error).__name__.lower(),
        "code": error.code,
        "hint": error.hint,
    }
    if error.where is not None:
        body["where"] = str(error.where)
    if error.problems:
        body["problems"] = [problem_json(problem) for problem in error.problems]
    if error.details:
        body["details"] = error.details
    return {"error": body}


def field_problem(
    message: str, hint: str = "Correct it; /api/openapi.json of the control port says what it may be."
) -> dict[str, str]:
    """One field of a request that does not fit."""
    return {"message": message, "code": "field_invalid", "hint": hint}


def request_invalid(problems: list[dict[str, str]]) -> dict[str, Any]:
    """The body where fields of a request do not fit; told with status 422."""
    return {
        "error": {
            "message": problems[0]["message"] if problems else "the request is not understood",
            "type": "invalid",
            "code": "request_invalid",
            "hint": "See /api/openapi.json of the control port for what this route takes.",
            "problems": problems,
        }
    }
