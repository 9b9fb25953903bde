"""What an application says that a call is for, and which ticket it works on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from groundplan.economics.experiment.model import BUDGET_PREFIX
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


def own_feature_of(header: bytes | None) -> str:
    """Of an application's: names that begin with `experiment/` are of calls that the gateway makes itself, and of no
    others."""
    feature = feature_of(header)
    return "" if feature.startswith(BUDGET_PREFIX) else feature


def said_of(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """Both headers of a request, as all calls are to have them that it orders; without what is left out."""
    said = {FEATURE: own_feature_of(headers.get(FEATURE)), TICKET: ticket_of(headers.get(TICKET))}
    return {name.decode(): value for name, value in said.items() if value}
