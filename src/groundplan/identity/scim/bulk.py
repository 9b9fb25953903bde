"""SCIM bulk requests (RFC 7644, section 3.7): many operations in one request, with references between them.

Operations run in their order, except that one that refers to what a later one creates waits for it. Each has the result
of a request of its own, and a failed one undoes only itself; after `failOnErrors` failures nothing more runs. Does not
know HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.error_shape import error_json
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound, TooLarge
from groundplan.identity.scim.resources import RESOURCE_TYPES, ResourceType
from groundplan.identity.scim.resources import error_json as scim_error

REQUEST = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
RESPONSE = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
MAX_OPERATIONS = 1000
_REFERENCE = "bulkId:"
_PATH = re.compile(r"/(Users|Groups)(?:/([^/?#]{1,100}))?")
ErrorMapper = Callable[[Exception], GroundplanError | None]
"""Maps an exception to the error of a single request; None: it is an internal fault."""
_METHODS = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `target`: an id or a reference; empty for POST."""

    index: int
    method: str
    kind: ResourceType
    target: str
    bulk_id: str
    data: Any

    @property
    def references(self) -> set[str]:
        """The bulkIds that it refers to."""
        return {text.removeprefix(_REFERENCE) for text in _strings([self.target, self.data]) if _is_reference(text)}


def run_bulk(conn: Connection[Any], actor: str, body: Mapping[str, Any], problem: ErrorMapper) -> dict[str, Any]:
    """The BulkResponse. `conn` is in no transaction: each operation has one of its own, as a single request would.

    Raises `Invalid` (`scim_bulk`), `TooLarge` (`scim_bulk_many`) if the request cannot be read, and exceptions that
    `problem` does not map.
    """
    waiting, max_failures = _operations(body), _fail_on_errors(body)
    created: dict[str, str] = {}
    results: dict[int, dict[str, Any]] = {}
    failed = 0
    while waiting:
        known_ids = {item.bulk_id for item in waiting if item.method == "POST"} | set(created)
        ready = next((item for item in waiting if item.references <= set(created)), None)
        operation = ready or next((item for item in waiting if not item.references <= known_ids), waiting[0])
        waiting.remove(operation)
        answer = (
            _run_operation(conn, actor, operation, created, problem)
            if ready is not None
            else _unresolved_result(operation)
        )
        results[operation.index] = answer
        if int(answer["status"]) >= 400:
            failed += 1
            if max_failures is not None and failed >= max_failures:
                break
    return {"schemas": [RESPONSE], "Operations": [results[index] for index in sorted(results)]}


def _run_operation(
    conn: Connection[Any], actor: str, operation: Operation, created: dict[str, str], problem: ErrorMapper
) -> dict[str, Any]:
    """Run one operation in its own transaction; returns its result."""
    kind, target = operation.kind, _resolve(operation.target, created)
    try:
        with conn.transaction():
            status, id = _apply_operation(conn, actor, operation, target, created)
    except Exception as error:
        mapped = problem(error)
        if mapped is None:
            raise
        return _result(operation, mapped.status, f"{kind.endpoint}/{target}" if target else "", mapped)
    if operation.method == "POST":
        created[operation.bulk_id] = id
    return _result(operation, status, f"{kind.endpoint}/{id}")


def _apply_operation(
    conn: Connection[Any], actor: str, operation: Operation, target: str, created: Mapping[str, str]
) -> tuple[int, str]:
    """Apply one operation; returns its status and the id of its resource."""
    kind, data = operation.kind, _resolve(operation.data, created)
    if operation.method == "POST":
        return 201, str(kind.create(conn, actor, data)["id"])
    id = parse_target(target)
    if operation.method == "DELETE":
        kind.delete(conn, actor, id)
        return 204, str(id)
    change = kind.replace if operation.method == "PUT" else kind.patch
    change(conn, actor, id, data)
    return 200, str(id)


def _result(operation: Operation, status: int, location: str, problem: GroundplanError | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"method": operation.method, "status": str(status)}
    if operation.bulk_id:
        answer["bulkId"] = operation.bulk_id
    if location and not (problem is not None and operation.method == "POST"):
        answer["location"] = location
    if problem is not None:
        answer["response"] = scim_error(status, error_json(problem)["error"])
    return answer


def _unresolved_result(operation: Operation) -> dict[str, Any]:
    listed = ", ".join(sorted(operation.references))
    problem = Conflict(
        f"it refers to a bulkId that no operation of this request has created: {listed}", code="scim_unresolved",
        hint="Check that operation and its result.",
    )  # fmt: skip
    return _result(operation, problem.status, "", problem)


def _operations(body: Mapping[str, Any]) -> list[Operation]:
    raw_operations = body.get("Operations")
    if body.get("schemas") != [REQUEST] or not isinstance(raw_operations, list):
        raise _bulk_error("send schemas and Operations")
    if len(raw_operations) > MAX_OPERATIONS:
        raise TooLarge(
            f"{len(raw_operations)} operations are more than {MAX_OPERATIONS}",
            code="scim_bulk_many",
            hint="Send them in several requests.",
        )
    operations = [_operation(index, item) for index, item in enumerate(raw_operations)]
    ids = [item.bulk_id for item in operations if item.bulk_id]
    if len(ids) != len(set(ids)):
        raise _bulk_error("a bulkId is there twice")
    return operations


def _operation(index: int, value: object) -> Operation:
    if not isinstance(value, Mapping):
        raise _bulk_error(f"operation {index + 1} is no object")
    method, path = str(value.get("method", "")).upper(), _PATH.fullmatch(str(value.get("path", "")))
    if method not in _METHODS or path is None:
        raise _bulk_error(f"operation {index + 1} has a method and a path, such as POST /Users")
    target, bulk_id, data = path.group(2) or "", str(value.get("bulkId") or ""), value.get("data")
    if (method == "POST") == bool(target):
        raise _bulk_error(f"operation {index + 1}: POST goes to /Users or /Groups, all others to one of them")
    if method == "POST" and not bulk_id:
        raise _bulk_error(f"operation {index + 1}: what is made needs a bulkId")
    if method != "DELETE" and not isinstance(data, Mapping):
        raise _bulk_error(f"operation {index + 1} needs data")
    return Operation(index, method, RESOURCE_TYPES[path.group(1)], target, bulk_id[:100], data)


def _fail_on_errors(body: Mapping[str, Any]) -> int | None:
    value = body.get("failOnErrors")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _bulk_error("failOnErrors is a number from 1 on")
    return value


def _resolve(value: Any, created: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return created.get(value.removeprefix(_REFERENCE), value) if _is_reference(value) else value
    if isinstance(value, list):
        return [_resolve(item, created) for item in value]
    if isinstance(value, Mapping):
        return {name: _resolve(item, created) for name, item in value.items()}
    return value


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def _is_reference(text: str) -> bool:
    return text.startswith(_REFERENCE)


def parse_target(text: str) -> UUID:
    """The id at the end of a path. Raises `NotFound` (`scim_user`) if it is not an id."""
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound(f"there is no {text[:60]}", code="scim_user", hint="GET lists them.") from error


def _bulk_error(why: str) -> Invalid:
    return Invalid(f"this bulk request cannot be read: {why}", code="scim_bulk", hint="See RFC 7644, section 3.7.")
