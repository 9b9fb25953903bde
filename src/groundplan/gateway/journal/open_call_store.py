"""What the ledger keeps of calls that have not ended, of which it tells an attempt: the records that these rows are of.

Where their journal is lost or damaged these calls end with what is here, as after any other crash: a row of a call and
its charges, not only those of attempts. Of calls that end as soon as they are taken over there is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.recovery import Attempt
from groundplan.ledger.model import Reservation, Settlement

_encode = msgspec.msgpack.Encoder().encode
_made = msgspec.msgpack.Decoder(Reservation).decode
_settled = msgspec.msgpack.Decoder(Settlement).decode


def note(conn: Conn, epoch: UUID, attempts: Sequence[Attempt]) -> None:
    """Keep what is known of these."""
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


def forget(conn: Conn, calls: Iterable[bytes]) -> None:
    """These have ended."""
    if ids := [UUID(bytes=call) for call in calls]:
        conn.execute("DELETE FROM open_call WHERE call_id = ANY(%s)", (ids,))


def forget_all(conn: Conn, epoch: UUID) -> None:
    """Nothing of an epoch is open any more."""
    conn.execute("DELETE FROM open_call WHERE epoch = %s", (epoch,))


def known(conn: Conn, epoch: UUID) -> list[Attempt]:
    """Of calls of an epoch that have not ended: attempts of which the ledger has a row, as it has them."""
    rows = conn.execute(
        "SELECT made, settled FROM open_call WHERE epoch = %s ORDER BY call_id, attempt", (epoch,)
    ).fetchall()
    return [
        Attempt(_made(made), None if settled is None else _settled(settled), shown=True, kept=settled is not None)
        for made, settled in rows
    ]
