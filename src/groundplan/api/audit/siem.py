"""Sends security events to the company's SIEM as they enter the audit log: OCSF over HTTPS, or over syslog (RFC 5424).

At least once: an event is sent again where delivery is uncertain, with the same id. Events wait in the log for a SIEM
that is unreachable, which is a finding; nothing else waits for it.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from groundplan.api.audit import siem_store
from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.audit import store as audit_store
from groundplan.core.audit.entry import decode
from groundplan.core.errors import Invalid
from groundplan.core.settings import resolve_secret
from groundplan.governance.ocsf import is_event, ocsf_event
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

SEND_SECONDS = 2.0
BATCH: Final = 500
WAIT_SECONDS: Final = 10.0
KIND: Final = "governance.siem"
_LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_FACILITY_AUDIT: Final = 13
_SYSLOG_SEVERITY: Final = {1: 6, 2: 5, 3: 4, 4: 2}


def send_new_events(services: Services) -> int:
    """Send the new events of the log; returns how many. Raises `Invalid` (`siem_url`) for a wrong setting."""
    url = services.settings.siem_url
    if url is None:
        return 0
    target = _parse_target(url)
    sent = 0
    while True:
        with services.transaction() as conn:
            if not audit_store.sequenced_from(conn, siem_store.sent_position(conn), 1):
                return sent
            start = siem_store.claim_position(conn)
            if start is None:
                return sent  # another process is sending
            rows = audit_store.sequenced_from(conn, start, BATCH)
            blueprint = current_or_none(conn)
        company = blueprint.company if blueprint else ""
        entries = [(leaf, decode(body)) for leaf, body in rows]
        events = [ocsf_event(entry, leaf, company) for leaf, entry in entries if is_event(entry)]
        # without holding a database connection, since the receiver may be slow
        problem = _send(target, events, services.settings.siem_token) if events else ""
        with services.transaction() as conn:
            siem_store.release_claim(conn, start)
            if not problem and rows:
                siem_store.advance_position(conn, start, rows[-1][0] + 1)
                sent += len(events)
            finding_store.replace_findings(conn, _findings(target, problem), kinds=(KIND,))
        if problem or len(rows) < BATCH:
            return sent


def _parse_target(url: str) -> SplitResult:
    target = urlsplit(url)
    local = target.hostname in _LOCAL_HOSTS
    fine = target.scheme in ("https", "syslog+tls") or (local and target.scheme in ("http", "syslog+tcp"))
    if not fine or not target.hostname or (target.scheme.startswith("syslog") and target.port is None):
        raise Invalid(
            "GROUNDPLAN_SIEM_URL is not usable", code="siem_url",
            hint="Write https://HOST/PATH or syslog+tls://HOST:6514; without TLS only to this machine.",
        )  # fmt: skip
    return target


def _send(target: SplitResult, events: Sequence[dict[str, Any]], token: str | None) -> str:
    """Send the events; returns why that failed, without secrets, or an empty string."""
    try:
        if target.scheme in ("http", "https"):
            return _post(target, events, resolve_secret(token) if token else None)
        return _syslog(target, events)
    except (OSError, http.client.HTTPException) as error:
        return f"{target.hostname} does not take events: {error.__class__.__name__}"
    except Invalid as error:
        return error.message


def _post(target: SplitResult, events: Sequence[dict[str, Any]], token: str | None) -> str:
    make = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = make(target.hostname or "", target.port, timeout=WAIT_SECONDS)
    headers = {"Content-Type": "application/x-ndjson"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    body = b"".join(_line(event) + b"\n" for event in events)
    try:
        connection.request("POST", target.path or "/", body, headers)
        answer = connection.getresponse()
        answer.read(65_536)
        return "" if 200 <= answer.status < 300 else f"{target.hostname} answered {answer.status}"
    finally:
        connection.close()


def _syslog(target: SplitResult, events: Sequence[dict[str, Any]]) -> str:
    """Send octet-counted frames (RFC 6587, RFC 5425). Syslog confirms nothing; the audit log has what was lost."""
    with socket.create_connection((target.hostname or "", target.port or 0), timeout=WAIT_SECONDS) as plain:
        wire: socket.socket = plain
        if target.scheme == "syslog+tls":
            wire = ssl.create_default_context().wrap_socket(plain, server_hostname=target.hostname)
        for event in events:
            priority = _FACILITY_AUDIT * 8 + _SYSLOG_SEVERITY[event["severity_id"]]
            head = f"<{priority}>1 - - groundplan - {event['class_uid']} - ".encode()
            frame = head + _line(event)
            wire.sendall(b"%d %b" % (len(frame), frame))
        wire.close()
    return ""


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _findings(target: SplitResult, problem: str) -> list[Finding]:
    if not problem:
        return []
    return [
        Finding(
            kind=KIND,
            subject="company",
            severity="high",
            message=f"Security events wait: {problem}.",
            hint=f"Check {target.hostname}; they are sent as soon as it answers. GROUNDPLAN_SIEM_URL names it.",
        )
    ]
