"""Blueprints: the numbered history, one of them, and the difference between two."""

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
    """The history, newest first."""
    with services.transaction() as conn:
        found = store.blueprints(conn)
        names = load_names(conn, caller, {str(row["created_by"]) for row in found})
    return {"blueprints": [{**row, "created_by_name": names.of(row["created_by"])} for row in found]}


@router.get("/blueprints/{number}")
def one_blueprint(number: str, services: ServicesDep, caller: Reader, content: bool = True) -> dict[str, Any]:
    """One blueprint, or `current`: content (amounts in `*_usd`), digest, signature and the declared files; without
    `content` neither that nor the files, which may be many megabytes."""
    with services.transaction() as conn:
        row = store.blueprint(conn, _number(number, store.current_number(conn)))
        by = load_names(conn, caller, (row["created_by"],)).of(row["created_by"])
    whole = {"files": row["sources"], "content": blueprint_json(artifact.decode(bytes(row["body"])))} if content else {}
    return {
        "number": row["number"],
        "digest": row["digest"],
        "signature": row["signature"],
        "key_id": row["key_id"],
        "created_at": row["created_at"],
        "created_by": row["created_by"],
        "created_by_name": by,
        "reason": row["reason"],
        "rollback_of": row["rollback_of"],
        "genesis": row["genesis"],
        **whole,
    }


@router.get("/blueprints/{number}/diff")
def difference(number: str, services: ServicesDep, _: Reader, against: int | None = None) -> dict[str, Any]:
    """Unified differences of the declared files from `against` (the one before, by default) to this blueprint."""
    with services.transaction() as conn:
        wanted = _number(number, store.current_number(conn))
        base = wanted - 1 if against is None else against
        after = store.blueprint(conn, wanted)["sources"]
        before = store.blueprint(conn, base)["sources"] if base > 0 else {}
    files = [
        {"file": name, "diff": text}
        for name in sorted({*before, *after})
        if (text := _unified(name, str(before.get(name, "")), str(after.get(name, ""))))
    ]
    return {"from": base, "to": wanted, "files": files}


def _unified(name: str, before: str, after: str) -> str:
    return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, name))


def _number(text: str, current: int | None) -> int:
    if text == "current" and current is not None:
        return current
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise NotFound(f"there is no blueprint '{text[:40]}'", code="blueprint_unknown", hint="Use a number, or current.")
