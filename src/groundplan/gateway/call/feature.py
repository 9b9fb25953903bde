"""What an application says that a call is for, and which ticket it works on."""

from __future__ import annotations

import re

from groundplan.ledger.ticket_store import TICKET_FORM

FEATURE = b"groundplan-feature"
TICKET = b"groundplan-ticket"
"""The headers."""
_FEATURE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_TICKET = re.compile(TICKET_FORM.encode())


def feature_of(header: bytes | None) -> str:
    """What it says, where it is a short name; anything else is left out."""
    return header.decode() if header is not None and _FEATURE.fullmatch(header) else ""


def ticket_of(header: bytes | None) -> str:
    """The ticket's number, as its system has it; anything else is left out."""
    return header.decode() if header is not None and _TICKET.fullmatch(header) else ""
