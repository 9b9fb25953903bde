"""Export of an auditor's data room: one archive for a period, a scope and a sample. The export is recorded in the audit
log."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated

from fastapi import Query
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.audit.data_room import MAX_SAMPLE, RoomRequest, delete_stale_exports, write_room
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.core.audit.store import record
from groundplan.core.errors import Invalid

router = protected_router("room")


@router.get("/exports/room", response_class=FileResponse)
def room(
    services: ServicesDep,
    caller: Reader,
    since: Annotated[date, Query(alias="from")],
    to: date,
    workload: Annotated[str, Query(max_length=63)] = "",
    sample: Annotated[int, Query(ge=0, le=MAX_SAMPLE)] = 50,
    seed: Annotated[str, Query(min_length=1, max_length=80)] = "1",
) -> FileResponse:
    """A ZIP archive with the log's files, sums, a sample of receipts with proofs, changes, evidence, controls and the
    register.

    `from` and `to` are days (UTC), both included. The same `seed` draws the same calls.
    """
    if to < since:
        raise Invalid("the period ends before it begins", code="room_period", hint="Give --from before --to.")
    room_request = RoomRequest(_start(since), _start(to + timedelta(days=1)), workload or None, sample, seed)
    delete_stale_exports(services.home, services.clock.now())
    temporary = tempfile.NamedTemporaryFile(prefix="room-", suffix=".zip", dir=services.home.run, delete=False)  # noqa: SIM115 -- deleted when it was sent
    temporary.close()
    path = Path(temporary.name)
    try:
        with services.transaction() as conn:
            if room_request.workload is not None:
                require_workload(current_blueprint(conn), room_request.workload)
            manifest = write_room(services.home, conn, room_request, services.clock.now(), path)
            detail = {
                "from": since.isoformat(), "to": to.isoformat(), "workload": workload, "seed": seed,
                "sampled": len(manifest["sampled"]),
            }  # fmt: skip
            record(conn, action="export.room", actor=caller.actor, subject="company", detail=detail)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return FileResponse(
        path, media_type="application/zip", filename=f"room-{since}-{to}.zip",
        background=BackgroundTask(path.unlink, missing_ok=True),
    )  # fmt: skip


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
