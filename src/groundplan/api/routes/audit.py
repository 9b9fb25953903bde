"""The audit log: listing entries, proving one entry, verifying all files, and rotating the signing key."""

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
"""The most archived ranges that are searched for one entry. Ids begin with their time, so few ranges can contain an
id."""


class EntriesQuery(BaseModel):
    """Filters of a list of entries; omitted ones do not apply."""

    subject: str | None = None
    without: Annotated[str | None, Field(max_length=60)] = None
    before: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    who: Annotated[str | None, Field(max_length=320)] = None
    action: Annotated[str | None, Field(max_length=60)] = None
    workload: Annotated[str | None, Field(pattern=r"^[a-z0-9-]{1,63}$")] = None
    since: datetime | None = None
    until: datetime | None = None

    def entry_filter(self, actor: str | None) -> audit_store.EntryFilter:
        return audit_store.EntryFilter(actor, self.action, self.workload, _aware(self.since), _aware(self.until))


@router.get("/audit")
def list_entries(services: ServicesDep, caller: Reader, query: Annotated[EntriesQuery, Query()]) -> dict[str, Any]:
    """List audit entries, newest first; for the next page pass the last id as `before`.

    `who` is an actor as named in the log, a person's e-mail address, or an address with failed sign-ins. `action` is a
    prefix of action names. Times without a zone are taken as UTC. `without=call` omits entries of calls, which are most
    of the log. Reading is itself recorded, at most once in ten minutes for the same query.

    In an entry, `index` is null until the entry is sequenced, at most about a second. `acting` names the real actor if
    somebody acted as another person in a demo, else it is null; `who` is the display name of the actor.

    `archived` is null, or gives the index from which entries of calls are listed (`until`): earlier ones, of times up
    to `till`, were moved to archive files. Each of them can still be fetched by its id.
    """
    with services.transaction() as conn:
        actor, sign_in_subject = (None, None) if query.who is None else _find_actor(conn, services, query.who)
        subject = query.subject if sign_in_subject is None else sign_in_subject
        entries = audit_store.list_entries(
            conn, subject=subject, without=query.without, before=query.before, limit=query.limit,
            wanted=query.entry_filter(actor),
        )  # fmt: skip
        filters = {"subject": subject, "who": actor, "action": query.action, "workload": query.workload}
        _record_reading(conn, services, caller, {name: value for name, value in filters.items() if value is not None})
        until, till = archive_store.archived_until(conn)
        archived_before = {"until": until, "till": till} if until else None
        return {"entries": entries_json(conn, caller, entries), "archived": archived_before}


@router.get("/audit/verify")
def verify(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Verify all files of the log and of its archive, as `groundplan audit verify` does."""
    key = load_public(services.home, "checkpoint").public_bytes_raw()
    verified = audit_verify.verify(services.home.audit, key).to_json()
    with services.transaction() as conn:
        ranges, missing = archive_store.list_ranges(conn), archive_store.missing_entries(conn)
    damaged = archive.check_files(services.home.audit, ranges, public_key=key, missing=missing)
    problems = [*verified["problems"], *({"at": problem.where, "message": problem.message} for problem in damaged)]
    return {**verified, "ok": verified["ok"] and not damaged, "archived": len(ranges), "problems": problems}


@router.get("/audit/archive")
def archived(
    services: ServicesDep,
    _: Reader,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> dict[str, Any]:
    """List the ranges of the log whose entries of calls were moved from the database to files, each with its file; for
    the next page pass the last `until` as `after`.

    `root` (hex) is the Merkle root over the entries of a range. `lacking` is null, or the range of entries that the
    database lost and that are in no file either.
    """
    with services.transaction() as conn:
        ranges, missing = archive_store.list_ranges(conn, after, limit), archive_store.missing_entries(conn)
    return {
        "url": services.settings.archive_url,
        "hot_days": services.settings.archive_days,
        "ranges": [file_range.to_json() for file_range in ranges],
        "lacking": None if missing is None else {"first": missing[0], "until": missing[1]},
    }


@router.get("/audit/verification")
def last_verification(request: Request, _: Reader) -> dict[str, Any]:
    """The result of the last verification in this process. If there is a newer checkpoint, what it added is verified
    first.

    `checked_at` is the time when the newest entries were verified, `everything_at` when all files were; both are null
    until the first verification has finished.
    """
    return _check(request).latest()


@router.post("/audit/verification", status_code=202)
def verify_again(request: Request, _: Reader) -> dict[str, Any]:
    """Start a verification of all files in the background; the response has the same form as that of GET."""
    _check(request).verify_everything()
    return _check(request).latest()


def _check(request: Request) -> LogCheck:
    check: LogCheck = request.app.state.log_check
    return check


@router.get("/audit/{entry_id}/proof")
def proof(entry_id: UUID, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """The inclusion proof of an entry: its index in the log and the hashes up to the newest signed checkpoint.

    Raises `NotFound` (`entry_unknown`), and `Unavailable` (`entry_unsequenced`) for an entry that is less than about a
    second old.
    """
    with services.transaction() as conn:
        entry = audit_store.entry_by_id(conn, entry_id) or _archived_entry(conn, services, entry_id)
        shown = entries_json(conn, caller, [] if entry is None else [entry])
        _record_reading(conn, services, caller, {"proof": str(entry_id)})
    if entry is None:
        raise NotFound(
            f"there is no audit entry {entry_id}", code="entry_unknown", hint="List them: `groundplan audit list`."
        )
    if entry.leaf_index is None:
        raise Unavailable(
            "this entry is not in the log yet", code="entry_unsequenced", hint="Try again in a second.",
            retry_after=1.0,
        )  # fmt: skip
    inclusion = audit_proof.inclusion_proof(services.home.audit, entry.leaf_index)
    holds = inclusion.holds(load_public(services.home, "checkpoint").public_bytes_raw())
    return {**shown[0], "proof": {**proof_json(inclusion), "holds": holds}}


@router.post("/audit/rotate-key")
def rotate_key(request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Replace the key that signs checkpoints, without a restart; the handover is signed by both keys."""
    sequencer: Sequencer = request.app.state.sequencer
    rotation = sequencer.rotate()
    detail = {"previous": rotation.previous.encode(), "next": rotation.next.encode()}
    with services.transaction() as conn:
        record(conn, action="audit.key_rotated", actor=caller.actor, subject="audit", detail=detail)
    return detail


def _archived_entry(conn: Connection[Any], services: Services, id: UUID) -> audit_store.StoredEntry | None:
    """Read an archived entry of a call from the files of the log; None if no searched range has it."""
    for file_range in archive_store.ranges_with_id(conn, id, MAX_SEARCHED_RANGES):
        if (entry := archive.find_entry(services.home.audit, file_range, id)) is not None:
            return entry
    return None


def _find_actor(conn: Connection[Any], services: Services, who: str) -> tuple[str | None, str | None]:
    """(actor, None) for the query parameter `who`, or (None, subject) if it is an e-mail address that belongs to
    nobody. A person is found by their present address, since the log names people by id; failed sign-ins of an unknown
    address are logged under a keyed pseudonym."""
    if "@" not in who:
        return who, None
    try:
        return person_actor(find_person_id(conn, who)), None
    except NotFound:
        return None, f"sign-in/{pseudonym(services.home, who)}"


def _aware(time: datetime | None) -> datetime | None:
    return time if time is None or time.tzinfo is not None else time.replace(tzinfo=UTC)


def _record_reading(conn: Connection[Any], services: Services, caller: Caller, filters: dict[str, str]) -> None:
    """Record that the caller read the log with these filters, at most once per `REPEAT_INTERVAL`."""
    subject = f"audit/{digest(canonical(filters))[:16]}"
    if not audit_store.was_recorded_since(
        conn, str(caller.actor), "audit.read", subject, services.clock.now() - REPEAT_INTERVAL
    ):
        record(conn, action="audit.read", actor=caller.actor, subject=subject, detail={"asked": filters})


def proof_json(inclusion: audit_proof.InclusionProof) -> dict[str, Any]:
    """The proof as JSON: hashes from the leaf to the root (hex), and the signed checkpoint as text."""
    return {
        "index": inclusion.index,
        "entry": inclusion.entry.decode(),
        "hashes": [hash.hex() for hash in inclusion.hashes],
        "checkpoint": inclusion.checkpoint.decode(),
    }
