"""Changes that other people made since a caller's files were taken from a blueprint, and which of them these files
would revert.

Files declare a state, not a change: applying an old copy silently reverts later changes, and a reader of the plan would
take that for intended. So each plan and apply reports reverted changes, and an apply that names the blueprint of its
files (`base`) is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection

from groundplan.api.actor_names import ActorNames, load_names
from groundplan.api.caller import Caller
from groundplan.core.audit import SYSTEM
from groundplan.core.errors import Conflict, Invalid, NotFound, Problem
from groundplan.governance.model import Change
from groundplan.release import store as release
from groundplan.release.difference import differences
from groundplan.release.model import Difference, difference_json
from groundplan.release.store import BlueprintOrigin

MAX_BLUEPRINTS_BACK = 5
"""How many blueprints back are searched for changes that a plan reverts."""
MAX_NAMED = 10


def check_base(conn: Connection[Any], caller: Caller, base: int | None) -> None:
    """Raise `Conflict` (`base_moved`) if the declared files were changed after blueprint `base`. Takes the release
    lock until the end of the transaction. Raises `NotFound` (`blueprint_unknown`)."""
    if base is None:
        return
    release.lock_releases(conn)
    origins = release.origins_since(conn, base)
    if not origins or origins[0].number != base:
        raise NotFound(
            f"there is no blueprint {base}",
            code="blueprint_unknown",
            hint="`groundplan plan` says which one is served.",
        )
    changing = [origin for origin in origins[1:] if origin.changes_files]
    if not changing:
        return
    names = load_names(conn, caller, {origin.created_by for origin in changing})
    newest = origins[-1].number
    problems = tuple(
        Problem(
            f"{_describe(origin, names)} changed {_subject_list(_differences_of(conn, origin))}", "base_moved",
            f"Add it to your files, then apply with --base {newest}.",
        )
        for origin in changing[-MAX_NAMED:]
    )  # fmt: skip
    raise Conflict(
        f"these files are from blueprint {base}, and since then {problems[-1].message}", code="base_moved",
        hint=f"`groundplan plan` shows what your files would revert; add it to them, then apply with --base {newest}.",
        problems=problems,
    )  # fmt: skip


def reject_if_match(if_match: str | None) -> None:
    """Raise `Invalid` (`if_match_unsupported`) for an If-Match header: a client that sends it relies on it, and
    blueprints are identified by number."""
    if if_match is not None:
        raise Invalid(
            "If-Match is not supported here", code="if_match_unsupported",
            hint="Send the number of the blueprint that the files are from as `base` (`groundplan apply --base N`).",
        )  # fmt: skip


def check_superseded(
    conn: Connection[Any], caller: Caller, base: int | None, superseded_pending: Sequence[Change]
) -> None:
    """Raise `Conflict` (`base_moved`) if a change that was requested after blueprint `base` would no longer be
    pending."""
    since_base = [item for item in superseded_pending if base is not None and item.base >= base]
    if since_base:
        superseded = superseded_changes(conn, caller, since_base, ())
        hint = "Add it to your files (`groundplan changes list`), or have it withdrawn on its page of the console."
        problems = tuple(Problem(item, "base_moved", hint) for item in superseded[:MAX_NAMED])
        raise Conflict(
            f"these files are from blueprint {base}, and {superseded[0]}",
            code="base_moved",
            hint=hint,
            problems=problems,
        )


def reverted_changes(
    conn: Connection[Any], caller: Caller, until: int, differences_found: Sequence[dict[str, Any]]
) -> list[str]:
    """Sentences on which of these differences (as JSON) from blueprint `until` reverse a change that a person made in
    it or in one of the blueprints just before."""
    if not differences_found:
        return []
    reversed_parts = {part: item["subject"] for item in differences_found for part in _field_changes(item)}
    reverted: dict[tuple[int, str], list[str]] = {}
    origins = [
        item
        for item in release.origins_since(conn, max(1, until - MAX_BLUEPRINTS_BACK))
        if item.changes_files and item.created_by != SYSTEM
    ]
    origins = [item for item in origins if 1 < item.number <= until]
    for item in reversed(origins):
        for change in _differences_of(conn, item):
            for subject, field, old, new in _field_changes(difference_json(change)):
                if (subject, field, new, old) in reversed_parts:
                    del reversed_parts[subject, field, new, old]
                    reverted.setdefault((item.number, subject), []).append(field)
    by_number = {item.number: item for item in origins}
    names = load_names(conn, caller, {item.created_by for item in origins})
    return [
        f"{subject}{_field_list(fields)} goes back to what it was before {_describe(by_number[number], names)}"
        for (number, subject), fields in reverted.items()
    ]


def superseded_changes(
    conn: Connection[Any], caller: Caller, superseded: Sequence[Change], waiting: Iterable[str]
) -> list[str]:
    """Sentences on former pending changes (`superseded`) that are gone or replaced; `waiting`: subjects that have
    a pending change now."""
    names = load_names(conn, caller, {change.requested_by for change in superseded})
    waiting_subjects = frozenset(waiting)
    return [
        f"{change.subject}: the change that {names.of(change.requested_by)} asked for at "
        f"{change.requested_at:%d %b %H:%M} UTC waits no longer"
        f"{', another one does' if change.subject in waiting_subjects else ': it is not in these files'}"
        for change in superseded
    ]


def _differences_of(conn: Connection[Any], origin: BlueprintOrigin) -> tuple[Difference, ...]:
    old, new = release.load_blueprint(conn, origin.number - 1), release.load_blueprint(conn, origin.number)
    return () if old is None or new is None else differences(old, new)


def _field_changes(difference: dict[str, Any]) -> list[tuple[str, str, str | None, str | None]]:
    """(subject, field, old, new) of a difference; the field is empty if the subject is added or removed."""
    subject, kind = difference["subject"], difference["type"]
    if kind == "changed":
        return [(subject, field["field"], field["old"], field["new"]) for field in difference["fields"]]
    was, becomes = ("there", None) if kind == "removed" else (None, "there")
    return [(subject, "", was, becomes)]


def _field_list(fields: Sequence[str]) -> str:
    names = [field for field in fields if field]
    return f" ({', '.join(names[:MAX_NAMED])})" if names else ""


def _subject_list(differences_found: Sequence[Difference]) -> str:
    listed = ", ".join(difference.subject for difference in differences_found[:MAX_NAMED])
    return (
        listed + (f" and {len(differences_found) - MAX_NAMED} more" if len(differences_found) > MAX_NAMED else "")
    ) or "comments or layout"


def _describe(origin: BlueprintOrigin, names: ActorNames) -> str:
    created = f"{names.of(origin.created_by)}, {origin.created_at:%d %b %H:%M} UTC"
    return f"blueprint {origin.number} ({created}: {origin.reason})"
