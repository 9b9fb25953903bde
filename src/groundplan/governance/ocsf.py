"""Entries of the audit log as security events in OCSF 1.3 (Open Cybersecurity Schema Framework). Pure.

Every entry is one event, identified by `metadata.uid`; calls that were answered are left out. Personal fields are
ciphertext in the log, and so they are in events.
"""

from __future__ import annotations

from typing import Any, Final

from groundplan.core.audit.entry import Entry

VERSION: Final = "1.3.0"
AUTHENTICATION, ACCOUNT, API = 3002, 3001, 6003
_FAILED_SUFFIXES: Final = (".refused", ".denied", ".failed", ".rejected")
_HIGH_SEVERITY_PREFIXES: Final = (
    "kill",
    "emergency",
    "person.erased",
    "person.erasure",
    "knowledge.erased",
    "audit.key",
    "policy",
)
_SIGN_IN_ACTIVITIES: Final = {
    "login": 1,
    "sign_in": 1,
    "logout": 2,
    "session.revoked": 2,
    "session.act_as": 1,
    "login.link": 99,
}
_ACCOUNT_PREFIXES: Final = (
    "key.", "token.", "person.", "people.", "group.", "passkey.", "appoint", "duties.", "access.", "membership.",
)  # fmt: skip
_ACTIVITY_WORDS: Final = (
    ("created", 1), ("added", 1), ("given", 1), ("begun", 1), ("read", 2), ("searched", 2), ("export", 2),
    ("revoked", 4), ("removed", 4), ("deleted", 4), ("erased", 4), ("withdrawn", 4), ("changed", 3), ("applied", 3),
    ("renamed", 3),
)  # fmt: skip


def is_event(entry: Entry) -> bool:
    """Whether the entry is a security event: all except calls that were answered."""
    return entry.action != "call" or str(entry.detail.get("status", "")) not in ("ok", "")


def ocsf_event(entry: Entry, leaf: int, company: str) -> dict[str, Any]:
    """The OCSF event of an entry. `leaf`: its index in the log."""
    uid, category = _event_class(entry.action)
    activity = _SIGN_IN_ACTIVITIES.get(entry.action, 99) if uid == AUTHENTICATION else _activity(entry.action)
    failed = entry.action.endswith(_FAILED_SUFFIXES) or (entry.action == "call" and entry.detail.get("status") != "ok")
    fields: dict[str, Any] = {
        "category_uid": category,
        "class_uid": uid,
        "activity_id": activity,
        "type_uid": uid * 100 + activity,
        "time": int(entry.at.timestamp() * 1000),
        "severity_id": _severity(entry.action, failed),
        "status_id": 2 if failed else 1,
        "message": f"{entry.action} {entry.subject}",
        "metadata": {
            "version": VERSION,
            "uid": str(entry.id),
            "sequence": leaf,
            "log_name": "audit",
            "tenant_uid": company,
            "product": {"name": "Groundplan", "vendor_name": "Groundplan"},
        },
        "actor": {"user": {"uid": entry.actor, "type_id": 1 if entry.actor.startswith("person:") else 3}},
        "resources": [{"name": entry.subject, "type": entry.subject.partition("/")[0]}],
        "unmapped": {"detail": dict(entry.detail)},
    }
    if uid == API:
        fields["api"] = {"operation": entry.action, "service": {"name": "groundplan"}}
    else:
        fields["user"] = {"uid": entry.subject}
    return fields


def _event_class(action: str) -> tuple[int, int]:
    """(class, category)"""
    if action in _SIGN_IN_ACTIVITIES:
        return AUTHENTICATION, 3
    if action.startswith(_ACCOUNT_PREFIXES):
        return ACCOUNT, 3
    return API, 6


def _activity(action: str) -> int:
    """create 1, read 2, update 3, delete 4, other 99"""
    return next((number for word, number in _ACTIVITY_WORDS if word in action), 99)


def _severity(action: str, failed: bool) -> int:
    """informational 1, low 2, medium 3, high 4"""
    if action.startswith(_HIGH_SEVERITY_PREFIXES):
        return 4
    return 3 if failed else 1
