"""What others changed since somebody's files were taken from a blueprint, and what of it these files take back.

Files say what is to be, not what changes: whoever applies an old copy of them takes back what was changed since, and
whoever is asked to read a plan takes that for what is wanted. So each plan and apply tells it, and an apply that names
the blueprint its files are from is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection

from groundplan.api.actor_names import Names, names_for
from groundplan.api.caller import Caller
from groundplan.core.audit import SYSTEM
from groundplan.core.errors import Conflict, Invalid, NotFound, Problem
from groundplan.governance.model import Change
from groundplan.release import store as release
from groundplan.release.difference import differences
from groundplan.release.model import Difference, difference_json
from groundplan.release.store import BlueprintOrigin

LOOKED_AT = 5
"""So many blueprints back it is looked for what a plan takes back."""
NAMED = 10


def check_base(conn: Connection[Any], caller: Caller, base: int | None) -> None:
    """Raises `Conflict` (`base_moved`) where what is declared was changed after blueprint `base`; nobody releases until
    the end of the transaction. Raises `NotFound` (`blueprint_unknown`)."""
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
    names = names_for(conn, caller, {each.created_by for each in moved})
    newest = made[-1].number
    problems = tuple(
        Problem(
            f"{_told(each, names)} changed {_subjects(_made_by(conn, each))}", "base_moved",
            f"Take it over into your files, then apply with --base {newest}.",
        )
        for each in moved[-NAMED:]
    )  # fmt: skip
    raise Conflict(
        f"these files are from blueprint {base}, and since then {problems[-1].message}", code="base_moved",
        hint=f"`groundplan plan` shows what your files would take back; take it over, then apply with --base {newest}.",
        problems=problems,
    )  # fmt: skip


def refuse_if_match(named: str | None) -> None:
    """Raises `Invalid` (`if_match_unsupported`): who sends it relies on it, and blueprints have numbers."""
    if named is not None:
        raise Invalid(
            "If-Match is not heeded here", code="if_match_unsupported",
            hint="Send the number of the blueprint that the files are from as `base` (`groundplan apply --base N`).",
        )  # fmt: skip


def check_dropped(conn: Connection[Any], caller: Caller, base: int | None, gone: Sequence[Change]) -> None:
    """Raises `Conflict` (`base_moved`) where what somebody asked for after blueprint `base` would wait no more."""
    lost = [each for each in gone if base is not None and each.base >= base]
    if lost:
        told = dropped(conn, caller, lost, ())
        hint = (
            "Take it over into your files (`groundplan changes list`), or have it withdrawn on its page of the console."
        )
        problems = tuple(Problem(each, "base_moved", hint) for each in told[:NAMED])
        raise Conflict(
            f"these files are from blueprint {base}, and {told[0]}", code="base_moved", hint=hint, problems=problems
        )


def taken_back(conn: Connection[Any], caller: Caller, until: int, found: Sequence[dict[str, Any]]) -> list[str]:
    """In sentences, what of these differences (as JSON) from blueprint `until` is the reverse of what somebody changed
    in it or one of those just before."""
    if not found:
        return []
    wanted = {part: each["subject"] for each in found for part in _parts(each)}
    told: dict[tuple[int, str], list[str]] = {}
    made = [
        each
        for each in release.origins_since(conn, max(1, until - LOOKED_AT))
        if each.changes_files and each.created_by != SYSTEM
    ]
    made = [each for each in made if 1 < each.number <= until]
    for each in reversed(made):
        for change in _made_by(conn, each):
            for subject, field, old, new in _parts(difference_json(change)):
                if (subject, field, new, old) in wanted:
                    del wanted[subject, field, new, old]
                    told.setdefault((each.number, subject), []).append(field)
    by_number = {each.number: each for each in made}
    names = names_for(conn, caller, {each.created_by for each in made})
    return [
        f"{subject}{_named(fields)} goes back to what it was before {_told(by_number[number], names)}"
        for (number, subject), fields in told.items()
    ]


def dropped(conn: Connection[Any], caller: Caller, waited: Sequence[Change], waiting: Iterable[str]) -> list[str]:
    """In sentences, which changes that waited are none any more, or another; `waiting`: the subjects that still do."""
    names = names_for(conn, caller, {each.requested_by for each in waited})
    again = frozenset(waiting)
    return [
        f"{each.subject}: the change that {names.of(each.requested_by)} asked for at {each.requested_at:%d %b %H:%M} "
        f"UTC waits no longer{', another one does' if each.subject in again else ': it is not in these files'}"
        for each in waited
    ]


def _made_by(conn: Connection[Any], made: BlueprintOrigin) -> tuple[Difference, ...]:
    old, new = release.load_blueprint(conn, made.number - 1), release.load_blueprint(conn, made.number)
    return () if old is None or new is None else differences(old, new)


def _parts(difference: dict[str, Any]) -> list[tuple[str, str, str | None, str | None]]:
    """(subject, field, what it was, what it becomes); of what comes or goes as a whole no field."""
    subject, kind = difference["subject"], difference["type"]
    if kind == "changed":
        return [(subject, each["field"], each["old"], each["new"]) for each in difference["fields"]]
    was, becomes = ("there", None) if kind == "removed" else (None, "there")
    return [(subject, "", was, becomes)]


def _named(fields: Sequence[str]) -> str:
    named = [field for field in fields if field]
    return f" ({', '.join(named[:NAMED])})" if named else ""


def _subjects(found: Sequence[Difference]) -> str:
    named = ", ".join(each.subject for each in found[:NAMED])
    return (named + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")) or "comments or layout"


def _told(made: BlueprintOrigin, names: Names) -> str:
    return f"blueprint {made.number} ({names.of(made.created_by)}, {made.created_at:%d %b %H:%M} UTC: {made.reason})"
