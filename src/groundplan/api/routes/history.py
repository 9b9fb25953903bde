"""The history of blueprints, one blueprint, and the difference between two."""

from __future__ import annotations

import difflib
from typing import Any

from groundplan.api import store
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.actor_names import load_names
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.api.views import blueprint_json
from groundplan.blueprint import artifact
from groundplan.core.errors import NotFound

router = protected_router("blueprints")


@router.get("/blueprints")
def list_blueprints(services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """List blueprints, newest first."""
    with services.transaction() as conn:
        rows = store.blueprints(conn)
        names = load_names(conn, caller, {str(row["created_by"]) for row in rows})
    return {"blueprints": [{**row, "created_by_name": names.of(row["created_by"])} for row in rows]}


@router.get("/blueprints/{number}")
def one_blueprint(number: str, services: ServicesDep, caller: Reader, content: bool = True) -> dict[str, Any]:
    """One blueprint, by number or `current`: digest, signature, content (amounts in `*_usd`) and declared files. With
    `content=false` without content and files, which may be many megabytes."""
    with services.transaction() as conn:
        row = store.blueprint(conn, _number(number, store.current_number(conn)))
        created_by_name = load_names(conn, caller, (row["created_by"],)).of(row["created_by"])
    body = {"files": row["sources"], "content": blueprint_json(artifact.decode(bytes(row["body"])))} if content else {}
    return {
        "number": row["number"],
        "digest": row["digest"],
        "signature": row["signature"],
        "key_id": row["key_id"],
        "created_at": row["created_at"],
        "created_by": row["created_by"],
        "created_by_name": created_by_name,
        "reason": row["reason"],
        "rollback_of": row["rollback_of"],
        "genesis": row["genesis"],
        **body,
    }


@router.get("/blueprints/{number}/diff")
def difference(number: str, services: ServicesDep, _: Reader, against: int | None = None) -> dict[str, Any]:
    """Unified diffs of the declared files from blueprint `against` (by default the one before) to this one."""
    with services.transaction() as conn:
        number_to = _number(number, store.current_number(conn))
        number_from = number_to - 1 if against is None else against
        after = store.blueprint(conn, number_to)["sources"]
        before = store.blueprint(conn, number_from)["sources"] if number_from > 0 else {}
    files = [
        {"file": name, "diff": text}
        for name in sorted({*before, *after})
        if (text := _unified(name, str(before.get(name, "")), str(after.get(name, ""))))
    ]
    return {"from": number_from, "to": number_to, "files": files}


def _unified(name: str, before: str, after: str) -> str:
    return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, name))


def _number(text: str, current: int | None) -> int:
    if text == "current" and current is not None:
        return current
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise NotFound(f"there is no blueprint '{text[:40]}'", code="blueprint_unknown", hint="Use a number, or current.")
