"""Changes that others made since a caller's files were taken from a blueprint, and which of them these files revert.

Files declare a state, not a change: applying an old copy silently reverts what was changed since, and a reader of the
plan would take that for intended. So each plan and apply reports it, and an apply that names the blueprint its files
are from is refused.
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
    """Raise `Conflict` (`base_moved`) where the declared files were changed after blueprint `base`. Takes the release
    lock until the end of the transaction. Raises `NotFound` (`blueprint_unknown`)."""
    if base is None:
        return
    release.lock_releases(conn)
    made = release.origins_since(conn, base)
    if not made or made[0].number != base:
        raise NotFound(
            f"there is no blueprint {base}",
            code="blueprint_unknown",
            hint="`groundplan plan` says which one is served.",
        )
    moved = [each for each in made[1:] if each.changes_files]
    if not moved:
        return
    names = load_names(conn, caller, {each.created_by for each in moved})
    newest = made[-1].number
    problems = tuple(
        Problem(
            f"{_describe(each, names)} changed {_subject_list(_differences_of(conn, each))}", "base_moved",
            f"Take it over into your files, then apply with --base {newest}.",
        )
        for each in moved[-MAX_NAMED:]
    )  # fmt: skip
    raise Conflict(
        f"these files are from blueprint {base}, and since then {problems[-1].message}", code="base_moved",
        hint=f"`groundplan plan` shows what your files would take back; take it over, then apply with --base {newest}.",
        problems=problems,
    )  # fmt: skip


def reject_if_match(named: str | None) -> None:
    """Raise `Invalid` (`if_match_unsupported`) for an If-Match header: a client that sends it relies on it, and
    blueprints are identified by number."""
    if named is not None:
        raise Invalid(
            "If-Match is not heeded here", code="if_match_unsupported",
            hint="Send the number of the blueprint that the files are from as `base` (`groundplan apply --base N`).",
        )  # fmt: skip


def check_superseded(
    conn: Connection[Any], caller: Caller, base: int | None, superseded_pending: Sequence[Change]
) -> None:
    """Raise `Conflict` (`base_moved`) where a change that was requested after blueprint `base` would no longer be
    pending."""
    since_base = [each for each in superseded_pending if base is not None and each.base >= base]
    if since_base:
        superseded = superseded_changes(conn, caller, since_base, ())
        hint = (
            "Take it over into your files (`groundplan changes list`), or have it withdrawn on its page of the console."
        )
        problems = tuple(Problem(each, "base_moved", hint) for each in superseded[:MAX_NAMED])
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
    wanted = {part: each["subject"] for each in differences_found for part in _field_changes(each)}
    reverted: dict[tuple[int, str], list[str]] = {}
    made = [
        each
        for each in release.origins_since(conn, max(1, until - MAX_BLUEPRINTS_BACK))
        if each.changes_files and each.created_by != SYSTEM
    ]
    made = [each for each in made if 1 < each.number <= until]
    for each in reversed(made):
        for change in _differences_of(conn, each):
            for subject, field, old, new in _field_changes(difference_json(change)):
                if (subject, field, new, old) in wanted:
                    del wanted[subject, field, new, old]
                    reverted.setdefault((each.number, subject), []).append(field)
    by_number = {each.number: each for each in made}
    names = load_names(conn, caller, {each.created_by for each in made})
    return [
        f"{subject}{_field_list(fields)} goes back to what it was before {_describe(by_number[number], names)}"
        for (number, subject), fields in reverted.items()
    ]


def superseded_changes(
    conn: Connection[Any], caller: Caller, superseded: Sequence[Change], waiting: Iterable[str]
) -> list[str]:
    """Sentences on former pending changes (`superseded`) that are gone or replaced; `waiting`: subjects that have
    a pending change now."""
    names = load_names(conn, caller, {each.requested_by for each in superseded})
    waiting_subjects = frozenset(waiting)
    return [
        f"{each.subject}: the change that {names.of(each.requested_by)} asked for at {each.requested_at:%d %b %H:%M} "
        f"UTC waits no longer"
        f"{', another one does' if each.subject in waiting_subjects else ': it is not in these files'}"
        for each in superseded
    ]


def _differences_of(conn: Connection[Any], made: BlueprintOrigin) -> tuple[Difference, ...]:
    old, new = release.load_blueprint(conn, made.number - 1), release.load_blueprint(conn, made.number)
    return () if old is None or new is None else differences(old, new)


def _field_changes(difference: dict[str, Any]) -> list[tuple[str, str, str | None, str | None]]:
    """(subject, field, old, new) of a difference; the field is empty where the subject is added or removed."""
    subject, kind = difference["subject"], difference["type"]
    if kind == "changed":
        return [(subject, each["field"], each["old"], each["new"]) for each in difference["fields"]]
    was, becomes = ("there", None) if kind == "removed" else (None, "there")
    return [(subject, "", was, becomes)]


def _field_list(fields: Sequence[str]) -> str:
    named = [field for field in fields if field]
    return f" ({', '.join(named[:MAX_NAMED])})" if named else ""


def _subject_list(found: Sequence[Difference]) -> str:
    named = ", ".join(each.subject for each in found[:MAX_NAMED])
    return (named + (f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else "")) or "comments or layout"


def _describe(made: BlueprintOrigin, names: ActorNames) -> str:
    return f"blueprint {made.number} ({names.of(made.created_by)}, {made.created_at:%d %b %H:%M} UTC: {made.reason})"
