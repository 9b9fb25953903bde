"""Findings about passkeys that were registered by a link of the operator and not confirmed yet. They are in everybody's
inbox, so that the person whose name was used sees them, whoever created the link."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.identity import passkey_store, passkeys
from groundplan.identity import store as people
from groundplan.identity.model import Passkey
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

KIND = "identity.passkey_waits"


def update_passkey_findings(conn: Connection[Any], now: datetime) -> None:
    """Update the findings to the passkeys that wait for confirmation."""
    finding_store.lock_kind(conn, KIND)
    findings = [_finding(conn, key, now) for key in passkey_store.list_unconfirmed(conn)]
    finding_store.replace_findings(conn, findings, kinds=(KIND,))


def _finding(conn: Connection[Any], key: Passkey, now: datetime) -> Finding:
    owner = people.person(conn, key.person_id)
    name = "somebody" if owner is None else owner.name
    waiting_note = (
        "" if key.waits_until is None else f" It counts from {key.waits_until:%d %b %H:%M} UTC unless it is removed."
    )
    counts = " It counts by now, since nobody objected." if key.is_valid(now) else waiting_note
    return Finding(
        kind=KIND,
        severity="high",
        subject=f"person/{key.person_id}",
        mark=passkeys.hex_id(key)[:32],
        message=f"A passkey for {name} was registered after a sign-in link from the operator and is not confirmed "
        f"yet.{counts}",
        hint=f"Ask {name} in person whether it is theirs, then confirm or remove it on the page Sign-in.",
    )
