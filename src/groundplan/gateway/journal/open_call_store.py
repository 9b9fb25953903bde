"""The SQL that keeps, of calls that have not ended, the journal records of attempts that have a ledger row.

Where their journal is lost or damaged these calls end from these records, as after any other crash, with a row of the
call and its charges, not only of attempts. Calls that end as soon as they are shipped are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.recovery import Attempt
from groundplan.ledger.model import Reservation, Settlement

_encode = msgspec.msgpack.Encoder().encode
_decode_reservation = msgspec.msgpack.Decoder(Reservation).decode
_decode_settlement = msgspec.msgpack.Decoder(Settlement).decode


def keep(conn: Conn, epoch: UUID, attempts: Sequence[Attempt]) -> None:
    """Keep the records of these attempts."""
    if not attempts:
        return
    conn.execute(
        """INSERT INTO open_call (call_id, attempt, epoch, made, settled)
           SELECT c, a, %s, m, s FROM unnest(%s::uuid[], %s::integer[], %s::bytea[], %s::bytea[]) u(c, a, m, s)
           ON CONFLICT (call_id, attempt) DO UPDATE SET settled = EXCLUDED.settled""",
        (
            epoch,
            [UUID(bytes=each.reservation.call) for each in attempts],
            [each.reservation.attempt for each in attempts],
            [_encode(each.reservation) for each in attempts],
            [None if each.settlement is None else _encode(each.settlement) for each in attempts],
        ),
    )


def delete(conn: Conn, calls: Iterable[bytes]) -> None:
    """Delete the records of calls that have ended."""
    if ids := [UUID(bytes=call) for call in calls]:
        conn.execute("DELETE FROM open_call WHERE call_id = ANY(%s)", (ids,))


def delete_epoch(conn: Conn, epoch: UUID) -> None:
    """Delete all records of an epoch."""
    conn.execute("DELETE FROM open_call WHERE epoch = %s", (epoch,))


def kept_attempts(conn: Conn, epoch: UUID) -> list[Attempt]:
    """Return the kept attempts of an epoch's calls that have not ended, in their state in the ledger."""
    rows = conn.execute(
        "SELECT made, settled FROM open_call WHERE epoch = %s ORDER BY call_id, attempt", (epoch,)
    ).fetchall()
    return [
        Attempt(
            _decode_reservation(made),
            None if settled is None else _decode_settlement(settled),
            is_written_open=True,
            is_written_closed=settled is not None,
        )
        for made, settled in rows
    ]
