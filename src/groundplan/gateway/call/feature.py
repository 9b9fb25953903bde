"""The headers by which an application names the feature that a call is for, and the ticket that it works on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from groundplan.economics.experiment.model import BUDGET_PREFIX
from groundplan.ledger.ticket_store import TICKET_FORM

FEATURE = b"groundplan-feature"
TICKET = b"groundplan-ticket"
_FEATURE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_TICKET = re.compile(TICKET_FORM.encode())


def feature_of(header: bytes | None) -> str:
    """The feature in the header; empty where it is no short name."""
    return header.decode() if header is not None and _FEATURE.fullmatch(header) else ""


def ticket_of(header: bytes | None) -> str:
    """The ticket's number in the header, as its system writes it; empty where it is none."""
    return header.decode() if header is not None and _TICKET.fullmatch(header) else ""


def client_feature_of(header: bytes | None) -> str:
    """As `feature_of`, for a client's header: only calls that the gateway makes itself may have names that begin with
    `experiment/`."""
    feature = feature_of(header)
    return "" if feature.startswith(BUDGET_PREFIX) else feature


def valid_headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """Those of both headers that are valid, for the calls that a request orders (a batch, a background response)."""
    values = {FEATURE: client_feature_of(headers.get(FEATURE)), TICKET: ticket_of(headers.get(TICKET))}
    return {name.decode(): value for name, value in values.items() if value}
