"""Prompts: the versions that were served, the difference between two, and restoring an earlier text."""

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
    """The version to restore, by number or beginning of its digest, and the reason."""

    model_config = ConfigDict(extra="forbid")
    to: Annotated[str, StringConstraints(min_length=1, max_length=64)] | Annotated[int, Field(ge=1)]
    reason: Annotated[str, StringConstraints(min_length=3, max_length=1000)]


@router.get("/prompts")
def list_prompts(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List the prompts that are declared or were served, with their number of versions and the workloads that use them
    now."""
    with services.transaction() as conn:
        versions, served = prompt_history.prompt_versions(conn), current(conn)
    declared = served.workspace.prompts if served is not None else {}
    users_by_prompt: dict[str, list[str]] = {}
    for workload in served.blueprint.workloads if served is not None else []:
        users_by_prompt.setdefault((workload.prompt or "").partition("@")[0], []).append(workload.name)
    return {
        "prompts": [
            {
                "name": name,
                "version": declared[name].version if name in declared else None,
                "owner": declared[name].owner if name in declared else None,
                "versions": len(versions.get(name, [])),
                "used_by": users_by_prompt.get(name, []),
            }
            for name in sorted({*declared, *versions})
        ]
    }


@router.get("/prompts/{name}")
def one_prompt(name: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """All versions of a prompt that were served, newest first, and the declared one."""
    with services.transaction() as conn:
        versions, served = _versions_of(conn, name), current(conn)
    doc = served.workspace.prompts.get(name) if served is not None else None
    newest = served.blueprint.number if served is not None else 0
    return {
        "name": name,
        "declared": None if doc is None else {"version": doc.version, "text": doc.text, "owner": doc.owner},
        "versions": [{**version.to_json(), "served": version.blueprints[1] == newest} for version in versions],
    }


@router.get("/prompts/{name}/diff")
def diff(name: str, old: Wanted, new: Wanted, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The line-by-line difference of two versions."""
    with services.transaction() as conn:
        versions = _versions_of(conn, name)
    before, after = prompts.find_version(versions, old), prompts.find_version(versions, new)
    return {
        "name": name, "old": before.number, "new": after.number,
        "lines": prompts.line_difference(before.text, after.text),
    }  # fmt: skip


@router.post("/prompts/{name}/rollback")
def rollback(name: str, body: Back, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Restore the text of an earlier version under the next version number. This is a release like any other, so parts
    in production may wait for approvals. `files` are the changed workspace files, to be updated in the workspace
    folder."""
    authorize(caller, "release", "company")
    with services.release_turn() as conn:
        versions = _versions_of(conn, name)
        stored = store.newest_blueprint(conn)
        assert stored is not None, "a version was served"
        restored = prompts.find_version(versions, str(body.to))
        declared = release.current(conn)
        doc = declared.workspace.prompts.get(name) if declared is not None else None
        if doc is not None and doc.text == restored.text:
            raise Conflict(
                f"the prompt {name} already has that text", code="prompt_current", hint="Name another version."
            )
        number = max([version.number for version in versions] + ([doc.version] if doc is not None else [])) + 1
        files = replace_prompt(stored.sources, name, restored.text, number)
        released = services.releases.apply(
            conn, caller.actor, files, f"{body.reason} (prompt {name} as in {restored.number})"
        )
    request.app.state.indexer.request_all()
    changed = {file: text for file, text in files.items() if text != stored.sources[file]}
    return {**released, "version": number, "files": changed}


def _versions_of(conn: Connection[Any], name: str) -> list[Version]:
    """The served versions of a prompt. Raises `NotFound` (`prompt_unknown`)."""
    versions = prompt_history.prompt_versions(conn).get(name)
    if not versions:
        raise NotFound(
            f"no prompt {name[:63]} was served", code="prompt_unknown", hint="`groundplan prompts list` lists them."
        )
    return versions
