"""SCIM bulk requests (RFC 7644, section 3.7): many operations in one, each by itself, references between them resolved.

Operations are made in their order, but for those that name something which a later one makes: these wait for it. Each
is told what a request of its own would be, and one that fails undoes itself only; after `failOnErrors` of them nothing
more is made. Does not know HTTP.
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
from groundplan.identity.scim.resources import KINDS, Kind
from groundplan.identity.scim.resources import error_json as scim_error

REQUEST = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
RESPONSE = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
MOST = 1000
_REFERENCE = "bulkId:"
_PATH = re.compile(r"/(Users|Groups)(?:/([^/?#]{1,100}))?")
Problem = Callable[[Exception], GroundplanError | None]
"""What a single request would be told of what was raised; None: it is a fault of ours."""
_METHODS = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `target` is an id, a reference, or empty for what is made."""

    place: int
    method: str
    kind: Kind
    target: str
    bulk_id: str
    data: Any

    @property
    def references(self) -> set[str]:
        """The bulkIds that it names."""
        return {each.removeprefix(_REFERENCE) for each in _strings([self.target, self.data]) if _is(each)}


def bulk(conn: Connection[Any], actor: str, body: Mapping[str, Any], problem: Problem) -> dict[str, Any]:
    """The BulkResponse; `conn` is in no transaction, and each operation is one of its own, as a request would be.

    Raises `Invalid` (`scim_bulk`), `TooLarge` (`scim_bulk_many`) where none of it can be read, and what is no problem.
    """
    waiting, most = _operations(body), _fail_on_errors(body)
    made: dict[str, str] = {}
    told: dict[int, dict[str, Any]] = {}
    failed = 0
    while waiting:
        known = {each.bulk_id for each in waiting if each.method == "POST"} | set(made)
        ready = next((each for each in waiting if each.references <= set(made)), None)
        operation = ready or next((each for each in waiting if not each.references <= known), waiting[0])
        waiting.remove(operation)
        answer = _one(conn, actor, operation, made, problem) if ready is not None else _unresolved(operation)
        told[operation.place] = answer
        if int(answer["status"]) >= 400:
            failed += 1
            if most is not None and failed >= most:
                break
    return {"schemas": [RESPONSE], "Operations": [told[place] for place in sorted(told)]}


def _one(
    conn: Connection[Any], actor: str, operation: Operation, made: dict[str, str], problem: Problem
) -> dict[str, Any]:
    """One operation in a transaction of its own."""
    kind, target = operation.kind, _resolved(operation.target, made)
    try:
        with conn.transaction():
            status, id = _done(conn, actor, operation, target, made)
    except Exception as error:
        told = problem(error)
        if told is None:
            raise
        return _told(operation, told.status, f"{kind.endpoint}/{target}" if target else "", told)
    if operation.method == "POST":
        made[operation.bulk_id] = id
    return _told(operation, status, f"{kind.endpoint}/{id}")


def _done(
    conn: Connection[Any], actor: str, operation: Operation, target: str, made: Mapping[str, str]
) -> tuple[int, str]:
    """Its status, and the id of what it was about."""
    kind, data = operation.kind, _resolved(operation.data, made)
    if operation.method == "POST":
        return 201, str(kind.create(conn, actor, data)["id"])
    id = id_at(target)
    if operation.method == "DELETE":
        kind.delete(conn, actor, id)
        return 204, str(id)
    change = kind.replace if operation.method == "PUT" else kind.patch
    change(conn, actor, id, data)
    return 200, str(id)


def _told(operation: Operation, status: int, location: str, problem: GroundplanError | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"method": operation.method, "status": str(status)}
    if operation.bulk_id:
        answer["bulkId"] = operation.bulk_id
    if location and not (problem is not None and operation.method == "POST"):
        answer["location"] = location
    if problem is not None:
        answer["response"] = scim_error(status, error_json(problem)["error"])
    return answer


def _unresolved(operation: Operation) -> dict[str, Any]:
    named = ", ".join(sorted(operation.references))
    problem = Conflict(
        f"it names what no operation here has made: {named}", code="scim_unresolved",
        hint="See whether that operation is there, and what became of it.",
    )  # fmt: skip
    return _told(operation, problem.status, "", problem)


def _operations(body: Mapping[str, Any]) -> list[Operation]:
    given = body.get("Operations")
    if body.get("schemas") != [REQUEST] or not isinstance(given, list):
        raise _no_bulk("send schemas and Operations")
    if len(given) > MOST:
        raise TooLarge(
            f"{len(given)} operations are more than {MOST}",
            code="scim_bulk_many",
            hint="Send them in several requests.",
        )
    found = [_operation(place, each) for place, each in enumerate(given)]
    named = [each.bulk_id for each in found if each.bulk_id]
    if len(named) != len(set(named)):
        raise _no_bulk("a bulkId is there twice")
    return found


def _operation(place: int, given: object) -> Operation:
    if not isinstance(given, Mapping):
        raise _no_bulk(f"operation {place + 1} is no object")
    method, path = str(given.get("method", "")).upper(), _PATH.fullmatch(str(given.get("path", "")))
    if method not in _METHODS or path is None:
        raise _no_bulk(f"operation {place + 1} has a method and a path, such as POST /Users")
    target, bulk_id, data = path.group(2) or "", str(given.get("bulkId") or ""), given.get("data")
    if (method == "POST") == bool(target):
        raise _no_bulk(f"operation {place + 1}: POST goes to /Users or /Groups, all others to one of them")
    if method == "POST" and not bulk_id:
        raise _no_bulk(f"operation {place + 1}: what is made needs a bulkId")
    if method != "DELETE" and not isinstance(data, Mapping):
        raise _no_bulk(f"operation {place + 1} needs data")
    return Operation(place, method, KINDS[path.group(1)], target, bulk_id[:100], data)


def _fail_on_errors(body: Mapping[str, Any]) -> int | None:
    given = body.get("failOnErrors")
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise _no_bulk("failOnErrors is a number from 1 on")
    return given


def _resolved(value: Any, made: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return made.get(value.removeprefix(_REFERENCE), value) if _is(value) else value
    if isinstance(value, list):
        return [_resolved(each, made) for each in value]
    if isinstance(value, Mapping):
        return {name: _resolved(each, made) for name, each in value.items()}
    return value


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _strings(each)]
    return [text for each in value for text in _strings(each)] if isinstance(value, list) else []


def _is(text: str) -> bool:
    return text.startswith(_REFERENCE)


def id_at(text: str) -> UUID:
    """The id at the end of an address. Raises `NotFound` (`scim_user`) for what is none."""
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound(f"there is no {text[:60]}", code="scim_user", hint="GET lists them.") from error


def _no_bulk(why: str) -> Invalid:
    return Invalid(f"this bulk request cannot be read: {why}", code="scim_bulk", hint="See RFC 7644, section 3.7.")
