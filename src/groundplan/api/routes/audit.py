"""The audit log: newest entries, the proof of one, and a verification of all files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from psycopg import Connection
from pydantic import BaseModel, Field

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.actor_names import entries_json
from groundplan.api.audit.log_check import LogCheck
from groundplan.api.caller import Caller, Reader, SignedIn
from groundplan.api.context import Services, ServicesDep
from groundplan.api.people import find_person_id
from groundplan.core.audit import archive, archive_store, person_actor, record
from groundplan.core.audit import proof as audit_proof
from groundplan.core.audit import store as audit_store
from groundplan.core.audit import verify as audit_verify
from groundplan.core.audit.keys import load_public
from groundplan.core.audit.pseudonym import pseudonym
from groundplan.core.audit.sequencer import Sequencer
from groundplan.core.canonical import canonical, digest
from groundplan.core.errors import NotFound, Unavailable

router = protected_router("audit")
REPEAT_INTERVAL = timedelta(minutes=10)
MAX_SEARCHED_RANGES = 32
"""The most archived ranges read for one entry: ids begin with their time, which few ranges cover."""


class EntriesQuery(BaseModel):
    """Filters of a list of entries; those left out do not apply."""

    subject: str | None = None
    without: Annotated[str | None, Field(max_length=60)] = None
    before: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    who: Annotated[str | None, Field(max_length=320)] = None
    action: Annotated[str | None, Field(max_length=60)] = None
    workload: Annotated[str | None, Field(pattern=r"^[a-z0-9-]{1,63}$")] = None
    since: datetime | None = None
    until: datetime | None = None

    def wanted(self, actor: str | None) -> audit_store.EntryFilter:
        return audit_store.EntryFilter(actor, self.action, self.workload, _aware(self.since), _aware(self.until))


@router.get("/audit")
def list_entries(services: ServicesDep, caller: Reader, query: Annotated[EntriesQuery, Query()]) -> dict[str, Any]:
    """Newest first; continue with `before` = the last id seen. `index` is null for up to a second.

    `who` is an actor as the log names it, a person's address, or an address that tried to sign in; `action` is the
    beginning of one, times are with zone. That you read it is recorded, the same question once in ten minutes.

    `acting` is null, or says who really did it while acting as the actor in a demo; `who` tells it in words.

    `without=call` leaves out the calls, which are most of the log.

    `archived` is null, or says from which index on calls are listed (`until`): those before, of times up to `till`,
    have left for files of the archive, and each is found by its id.
    """
    with services.transaction() as conn:
        actor, stranger = (None, None) if query.who is None else _find_actor(conn, services, query.who)
        subject = query.subject if stranger is None else stranger
        found = audit_store.list_entries(
            conn, subject=subject, without=query.without, before=query.before, limit=query.limit,
            wanted=query.wanted(actor),
        )  # fmt: skip
        asked = {"subject": subject, "who": actor, "action": query.action, "workload": query.workload}
        _record_reading(conn, services, caller, {name: value for name, value in asked.items() if value is not None})
        until, till = archive_store.archived_until(conn)
        left = {"until": until, "till": till} if until else None
        return {"entries": entries_json(conn, caller, found), "archived": left}


@router.get("/audit/verify")
def verify(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Check all files of the log, and those of entries that have left for an archive, as `groundplan audit verify`
    does."""
    key = load_public(services.home, "checkpoint").public_bytes_raw()
    found = audit_verify.verify(services.home.audit, key).to_json()
    with services.transaction() as conn:
        ranges, lacking = archive_store.list_ranges(conn), archive_store.missing_entries(conn)
    wrong = archive.check_files(services.home.audit, ranges, public_key=key, missing=lacking)
    problems = [*found["problems"], *({"at": each.where, "message": each.message} for each in wrong)]
    return {**found, "ok": found["ok"] and not wrong, "archived": len(ranges), "problems": problems}


@router.get("/audit/archive")
def archived(
    services: ServicesDep,
    _: Reader,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> dict[str, Any]:
    """The ranges of the log whose entries of calls have left the database, and the file that each is in; continue with
    `after` = `until` of the last one seen.

    `root` (hex) is over a range's entries. `lacking` is null, or names entries that the database lost: they are neither
    here nor in a file.
    """
    with services.transaction() as conn:
        ranges, lacking = archive_store.list_ranges(conn, after, limit), archive_store.missing_entries(conn)
    return {
        "url": services.settings.archive_url,
        "hot_days": services.settings.archive_days,
        "ranges": [each.to_json() for each in ranges],
        "lacking": None if lacking is None else {"first": lacking[0], "until": lacking[1]},
    }


@router.get("/audit/verification")
def last_verification(request: Request, _: Reader) -> dict[str, Any]:
    """What the last verification in this process found, and when; what a newer checkpoint added is verified first.

    `checked_at` is when the newest entries were verified, `everything_at` when all files were; null while the first
    verification runs.
    """
    return _check(request).latest()


@router.post("/audit/verification", status_code=202)
def verify_again(request: Request, _: Reader) -> dict[str, Any]:
    """Verify all files again, in the background; the response is that of GET."""
    _check(request).verify_everything()
    return _check(request).latest()


def _check(request: Request) -> LogCheck:
    check: LogCheck = request.app.state.log_check
    return check


@router.get("/audit/{entry_id}/proof")
def proof(entry_id: UUID, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """The index of an entry in the log, and the hashes that prove it under the newest signed checkpoint."""
    with services.transaction() as conn:
        found = audit_store.entry_by_id(conn, entry_id) or _archived_entry(conn, services, entry_id)
        shown = entries_json(conn, caller, [] if found is None else [found])
        _record_reading(conn, services, caller, {"proof": str(entry_id)})
    if found is None:
        raise NotFound(
            f"there is no audit entry {entry_id}", code="entry_unknown", hint="List them: `groundplan audit list`."
        )
    if found.leaf_index is None:
        raise Unavailable(
            "this entry is not in the log yet", code="entry_unsequenced", hint="Try again in a second.",
            retry_after=1.0,
        )  # fmt: skip
    made = audit_proof.inclusion_proof(services.home.audit, found.leaf_index)
    holds = made.holds(load_public(services.home, "checkpoint").public_bytes_raw())
    return {**shown[0], "proof": {**proof_json(made), "holds": holds}}


@router.post("/audit/rotate-key")
def rotate_key(request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Sign checkpoints with a new key from now on, without a restart; both keys sign the handover."""
    sequencer: Sequencer = request.app.state.sequencer
    done = sequencer.rotate()
    told = {"previous": done.previous.encode(), "next": done.next.encode()}
    with services.transaction() as conn:
        record(conn, action="audit.key_rotated", actor=caller.actor, subject="audit", detail=told)
    return told


def _archived_entry(conn: Connection[Any], services: Services, id: UUID) -> audit_store.StoredEntry | None:
    """An archived entry of a call, from the files of the log."""
    for of in archive_store.ranges_with_id(conn, id, MAX_SEARCHED_RANGES):
        if (found := archive.find_entry(services.home.audit, of, id)) is not None:
            return found
    return None


def _find_actor(conn: Connection[Any], services: Services, who: str) -> tuple[str | None, str | None]:
    """(actor, None) for a query: people are found by their present address, since the log has their ids. For an address
    that belongs to nobody (None, subject of its attempts), which the log has under a keyed pseudonym."""
    if "@" not in who:
        return who, None
    try:
        return person_actor(find_person_id(conn, who)), None
    except NotFound:
        return None, f"sign-in/{pseudonym(services.home, who)}"


def _aware(time: datetime | None) -> datetime | None:
    return time if time is None or time.tzinfo is not None else time.replace(tzinfo=UTC)


def _record_reading(conn: Connection[Any], services: Services, caller: Caller, asked: dict[str, str]) -> None:
    """Record that the caller read the log, with the query."""
    subject = f"audit/{digest(canonical(asked))[:16]}"
    if not audit_store.was_recorded_since(
        conn, str(caller.actor), "audit.read", subject, services.clock.now() - REPEAT_INTERVAL
    ):
        record(conn, action="audit.read", actor=caller.actor, subject=subject, detail={"asked": asked})


def proof_json(found: audit_proof.InclusionProof) -> dict[str, Any]:
    """Hashes from the leaf upwards (hex) and the signed checkpoint, as text."""
    return {
        "index": found.index,
        "entry": found.entry.decode(),
        "hashes": [hash.hex() for hash in found.hashes],
        "checkpoint": found.checkpoint.decode(),
    }
