"""Prompts: their versions as they were served, the difference between two, and going back to an earlier text."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.catalog.prompt_edit import replace_prompt
from groundplan.core.errors import Conflict, NotFound
from groundplan.release import prompt_history, prompts, store
from groundplan.release import service as release
from groundplan.release.prompts import Version
from groundplan.release.service import current

router = protected_router("prompts")
Wanted = Annotated[str, Query(min_length=1, max_length=64)]


class Back(BaseModel):
    """To which version (or the beginning of its digest), and why."""

    model_config = ConfigDict(extra="forbid")
    to: Annotated[str, StringConstraints(min_length=1, max_length=64)] | Annotated[int, Field(ge=1)]
    reason: Annotated[str, StringConstraints(min_length=3, max_length=1000)]


@router.get("/prompts")
def list_prompts(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Every prompt that is declared or was served, with how many versions it has and who uses it now."""
    with services.transaction() as conn:
        known, now = prompt_history.prompt_versions(conn), current(conn)
    declared = now.workspace.prompts if now is not None else {}
    used: dict[str, list[str]] = {}
    for workload in now.blueprint.workloads if now is not None else []:
        used.setdefault((workload.prompt or "").partition("@")[0], []).append(workload.name)
    return {
        "prompts": [
            {
                "name": name,
                "version": declared[name].version if name in declared else None,
                "owner": declared[name].owner if name in declared else None,
                "versions": len(known.get(name, [])),
                "used_by": used.get(name, []),
            }
            for name in sorted({*declared, *known})
        ]
    }


@router.get("/prompts/{name}")
def one_prompt(name: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """All texts of a prompt that were served, the newest first, and what is declared now."""
    with services.transaction() as conn:
        found, now = _versions_of(conn, name), current(conn)
    doc = now.workspace.prompts.get(name) if now is not None else None
    newest = now.blueprint.number if now is not None else 0
    return {
        "name": name,
        "declared": None if doc is None else {"version": doc.version, "text": doc.text, "owner": doc.owner},
        "versions": [{**each.to_json(), "served": each.blueprints[1] == newest} for each in found],
    }


@router.get("/prompts/{name}/diff")
def diff(name: str, old: Wanted, new: Wanted, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Line by line from one version to another."""
    with services.transaction() as conn:
        found = _versions_of(conn, name)
    before, after = prompts.find_version(found, old), prompts.find_version(found, new)
    return {
        "name": name, "old": before.number, "new": after.number,
        "lines": prompts.line_difference(before.text, after.text),
    }  # fmt: skip


@router.post("/prompts/{name}/rollback")
def rollback(name: str, body: Back, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Say again what an earlier version said, under the next number: a release like any other, so that production waits
    for approvals. `files` are what the workspace's folder has to say from now on."""
    authorize(caller, "release", "company")
    with services.release_turn() as conn:
        found = _versions_of(conn, name)
        stored = store.newest_blueprint(conn)
        assert stored is not None, "a version was served"
        old = prompts.find_version(found, str(body.to))
        declared = release.current(conn)
        doc = declared.workspace.prompts.get(name) if declared is not None else None
        if doc is not None and doc.text == old.text:
            raise Conflict(
                f"the prompt {name} has that text already", code="prompt_current", hint="Name another version."
            )
        number = max([each.number for each in found] + ([doc.version] if doc is not None else [])) + 1
        files = replace_prompt(stored.sources, name, old.text, number)
        made = services.releases.apply(conn, caller.actor, files, f"{body.reason} (prompt {name} as in {old.number})")
    request.app.state.indexer.request_all()
    changed = {file: text for file, text in files.items() if text != stored.sources[file]}
    return {**made, "version": number, "files": changed}


def _versions_of(conn: Connection[Any], name: str) -> list[Version]:
    found = prompt_history.prompt_versions(conn).get(name)
    if not found:
        raise NotFound(
            f"no prompt {name[:63]} was served", code="prompt_unknown", hint="`groundplan prompts list` lists them."
        )
    return found
