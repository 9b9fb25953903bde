"""The JSON form of errors under /api, on the control port and on the gateway's:
`{"error": {"message", "type", "code", "hint", "where"?, "problems"?, "details"?}}`.

Does not set statuses and headers: the servers do.
"""

from __future__ import annotations

from typing import Any

from groundplan.core.errors import GroundplanError, Problem


def problem_json(problem: Problem) -> dict[str, Any]:
    """The JSON form of a problem; `where` is `file:line:column` or absent."""
    body: dict[str, Any] = {"message": problem.message, "code": problem.code, "hint": problem.hint}
    if problem.where is not None:
        body["where"] = str(problem.where)
    return body


def error_json(error: GroundplanError) -> dict[str, Any]:
    """The body of an error response."""
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
    """The JSON form of an invalid field of a request."""
    return {"message": message, "code": "field_invalid", "hint": hint}


def request_invalid(problems: list[dict[str, str]]) -> dict[str, Any]:
    """The body of a response with status 422, for a request with invalid fields."""
    return {
        "error": {
            "message": problems[0]["message"] if problems else "the request is not understood",
            "type": "invalid",
            "code": "request_invalid",
            "hint": "See /api/openapi.json of the control port for what this route takes.",
            "problems": problems,
        }
    }
