"""SCIM bulk requests (RFC 7644, section 3.7): many operations in one, each by itself, references between them resolved.

Operations are made in their order, but for those that name something which a later one makes: these wait for it. One
that fails undoes itself only; after `failOnErrors` of them nothing more is made. Does not know HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.errors import GroundplanError, Invalid, NotFound, TooLarge
from groundplan.identity.scim.resources import ERROR, KINDS, Kind

REQUEST = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
RESPONSE = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
MOST = 1000
_REFERENCE = "bulkId:"
_PATH = re.compile(r"/(Users|Groups)(?:/([^/?#]{1,100}))?")
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


def bulk(conn: Connection[Any], actor: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The BulkResponse. Raises `Invalid` (`scim_bulk`), `TooLarge` (`scim_bulk_many`) where none of it can be read."""
    waiting, most = _operations(body), _fail_on_errors(body)
    made: dict[str, str] = {}
    told: dict[int, dict[str, Any]] = {}
    failed = 0
    while waiting:
        known = {each.bulk_id for each in waiting if each.method == "POST"} | set(made)
        ready = next((each for each in waiting if each.references <= set(made)), None)
        operation = ready or next((each for each in waiting if not each.references <= known), waiting[0])
        waiting.remove(operation)
        answer = _one(conn, actor, operation, made) if ready is not None else _unresolved(operation)
        told[operation.place] = answer
        if int(answer["status"]) >= 400:
            failed += 1
            if most is not None and failed >= most:
                break
    return {"schemas": [RESPONSE], "Operations": [told[place] for place in sorted(told)]}


def _one(conn: Connection[Any], actor: str, operation: Operation, made: dict[str, str]) -> dict[str, Any]:
    """One operation in a savepoint of its own."""
    kind, data = operation.kind, _resolved(operation.data, made)
    target = _resolved(operation.target, made)
    try:
        with conn.transaction():
            if operation.method == "POST":
                found = kind.create(conn, actor, data)
                made[operation.bulk_id] = found["id"]
                return _told(operation, 201, f"{kind.endpoint}/{found['id']}")
            id = _id(target)
            if operation.method == "DELETE":
                kind.delete(conn, actor, id)
                return _told(operation, 204, f"{kind.endpoint}/{id}")
            change = kind.replace if operation.method == "PUT" else kind.patch
            change(conn, actor, id, data)
            return _told(operation, 200, f"{kind.endpoint}/{id}")
    except GroundplanError as error:
        return _told(operation, error.status, f"{kind.endpoint}/{target}" if target else "", error.message)


def _told(operation: Operation, status: int, location: str, problem: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = {"method": operation.method, "status": str(status)}
    if operation.bulk_id:
        answer["bulkId"] = operation.bulk_id
    if location and not (problem and operation.method == "POST"):
        answer["location"] = location
    if problem:
        answer["response"] = {"schemas": [ERROR], "status": str(status), "detail": problem}
    return answer


def _unresolved(operation: Operation) -> dict[str, Any]:
    named = ", ".join(sorted(operation.references))
    answer = _told(operation, 409, "", f"it names what no operation here has made: {named}")
    answer["response"]["scimType"] = "invalidValue"
    return answer


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


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound(f"there is no {text[:60]}", code="scim_user", hint="GET lists them.") from error


def _no_bulk(why: str) -> Invalid:
    return Invalid(f"this bulk request cannot be read: {why}", code="scim_bulk", hint="See RFC 7644, section 3.7.")
