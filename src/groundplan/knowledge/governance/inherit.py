"""What holds for a document: the source's word, then its folders', then its own, then what people decided. Pure.

Whoever may write a document may not open it further: what a folder or a document says of itself can only narrow what
stands above it (a lower state, a higher sensitivity, fewer purposes). A decision of the owner or steward may widen.
Each value remembers where it is from, and what was said and not followed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, Final

from groundplan.catalog.fields import is_email
from groundplan.catalog.levels import SENSITIVITIES
from groundplan.catalog.units import duration_ms
from groundplan.core.errors import Invalid

STATES: Final = ("draft", "approved", "rejected", "superseded", "retired")
PLAIN: Final = ("owner", "steward", "licence")
"""The nearest word holds."""
SETS: Final = ("purposes", "workloads", "residency")
"""Only what everybody allows; None is anything."""
FIELDS: Final = (
    *PLAIN, "state", "sensitivity", *SETS, "valid_from", "valid_until", "review_days", "retain_days", "legal_hold"
)  # fmt: skip
OWN: Final = (
    *PLAIN, "state", "sensitivity", *SETS, "valid_from", "valid_until", "review_every", "retain", "legal_hold",
    "review_by", "supersedes", "readers", "deny", "title",
)  # fmt: skip
"""Keys of front matter and sidecar files that mean something here."""
ITS_OWN: Final = ("document", "sidecar")
"""Origins of what a document says of itself: in its text, and in the file beside it."""
_PERMISSIONS: Final = ("readers", "deny", "sensitivity")
"""Keys without which a document would be open to more people: one that is certainly misspelt is refused."""
_CLOSED: Final = {"approved": 0, "draft": 1, "superseded": 2, "retired": 2, "rejected": 2}
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Level:
    """What one place says: `origin` is `source/NAME`, `folder/PATH`, `document` or `decision of ...`."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Holds:
    """What holds, by field, and why: `origins[field]` is {"from": origin, "ignored": [sentences]}."""

    values: Mapping[str, Any]
    origins: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Said:
    """What front matter or a sidecar says, checked; `unknown` are keys that look like one of ours."""

    values: Mapping[str, Any]
    readers: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    review_by: date | None = None
    supersedes: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


def holds(levels: Sequence[Level], decisions: Mapping[str, Mapping[str, Any]], digest: str) -> Holds:
    """The values of the first level (the source), narrowed by the others, then as decided.

    A decision that approves is about the content that was seen: with another `digest` it stands no more.
    """
    values: dict[str, Any] = dict.fromkeys(FIELDS)
    values |= {"state": "approved", "sensitivity": "internal", "legal_hold": False}
    origins: dict[str, dict[str, Any]] = {}
    for at, level in enumerate(levels):
        for name, wanted in level.values.items():
            if name not in values or wanted is None:
                continue
            got = wanted if at == 0 else narrowed(name, values[name], wanted)
            ignored = origins.get(name, {}).get("ignored", [])
            if got != wanted:
                ignored = [*ignored, f"{level.origin} says {_shown(wanted)}, which is wider"]
            if got != values[name] or (got == wanted and name not in origins):
                origins[name] = {"from": level.origin}
            values[name] = got
            if ignored:
                origins.setdefault(name, {"from": "default"})["ignored"] = ignored
    for name, decision in decisions.items():
        if name in values and not (name == "state" and _lapsed(decision, digest)):
            values[name] = decision["value"]
            origins[name] = {"from": f"decision of {decision['by']}", "at": decision.get("at")}
    return Holds(values, origins)


def still_held(found: Holds, held_by: str | None, decisions: Mapping[str, Mapping[str, Any]]) -> Holds:
    """The same, under the legal hold that a folder or the document itself (`held_by`) set, where they say it no more:
    whoever may write there must not end it. A decision does; the source's declaration ends the source's own."""
    own = held_by is not None and not held_by.startswith(("source/", "decision of "))
    if not own or found.values["legal_hold"] or "legal_hold" in decisions:
        return found
    origin = {"from": held_by, "ignored": [f"{held_by} no longer says legal_hold, which only a decision ends"]}
    return Holds({**found.values, "legal_hold": True}, {**found.origins, "legal_hold": origin})


def _lapsed(decision: Mapping[str, Any], digest: str) -> bool:
    return decision["value"] == "approved" and decision.get("digest") not in (None, digest)


def narrowed(name: str, held: Any, wanted: Any) -> Any:
    """The stricter of the two."""
    if name in PLAIN or held is None:
        return wanted
    if name == "state":
        return max(held, wanted, key=_CLOSED.__getitem__)
    if name == "sensitivity":
        return max(held, wanted, key=SENSITIVITIES.index)
    if name in SETS:
        return sorted(set(held) & set(wanted))
    if name == "legal_hold":
        return held or wanted
    if name == "valid_from":
        return max(held, wanted)
    return wanted if name == "retain_days" else min(held, wanted)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def retained_until(changed: datetime, days: int | None) -> date | None:
    """The last day on which a document is kept, from when it was changed."""
    return None if days is None else later(changed.date(), days)


def later(day: date, days: int) -> date:
    """So many days later, at most the last day that there is: what a document says of itself may be any number."""
    return day + timedelta(days=min(days, (date.max - day).days))


def said(told: Mapping[str, Any], where: str) -> Said:
    """Front matter or a sidecar (`where`, in words), checked. Raises `Invalid` (front_matter) naming key and form."""
    for key in told:
        if key not in OWN and (name := next((name for name in _PERMISSIONS if _is_meant(key, name)), None)):
            raise Invalid(
                f"`{key}` in its {where} is no key", code="front_matter", hint=f"Write `{name}` if that is meant."
            )
    values = {column: read(told, name, where) for name, (column, read) in _READ.items() if name in told}
    readers = _names(told, "readers", where) if "readers" in told else None
    # as in .readers and columns of readers
    refused = [name[1:].strip() for name in readers or () if name.startswith("!")]
    if "" in refused:
        raise _wrong(where, "readers", "not a list of names", "[hr, ana@acme.example]")
    return Said(
        values,
        None if readers is None else frozenset(_reader(name) for name in readers if not name.startswith("!")),
        frozenset(map(_reader, [*refused, *(_names(told, "deny", where) if "deny" in told else ())])),
        _day(told, "review_by", where) if told.get("review_by") is not None else None,
        tuple(_names(told, "supersedes", where)) if "supersedes" in told else (),
        dict(_misspelt(told)),
    )


def _is_meant(key: str, name: str) -> bool:
    """Whether a key is surely another one: in capitals, with a letter more or less, or with two that changed places."""
    typed = key.strip().lower()
    if typed == name or len(name) < 5:
        return typed == name
    longer, shorter = (typed, name) if len(typed) > len(name) else (name, typed)
    if len(longer) == len(shorter):
        return sorted(longer) == sorted(shorter)
    return any(longer[:at] + longer[at + 1 :] == shorter for at in range(len(longer)))


def _misspelt(told: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key in told:
        if key not in OWN and not key.startswith("page_") and (near := difflib.get_close_matches(key, OWN, 1, 0.84)):
            yield key, near[0]


def _reader(name: str) -> str:
    return name.lower() if "@" in name else name


def _wrong(where: str, name: str, what: str, example: str) -> Invalid:
    return Invalid(f"`{name}` in its {where} is {what}", code="front_matter", hint=f"Write `{name}: {example}`.")


def _person(told: Mapping[str, Any], name: str, where: str) -> str:
    value = told[name]
    if not isinstance(value, str) or not is_email(value.strip().lower()):
        raise _wrong(where, name, "no e-mail address", "ana@acme.example")
    return value.strip().lower()


def _line(told: Mapping[str, Any], name: str, where: str) -> str:
    value = told[name]
    if not isinstance(value, str) or not value.strip() or len(value) > 400:
        raise _wrong(where, name, "no short text", "CC-BY-4.0")
    return value.strip()


def _one_of(known: Sequence[str], told: Mapping[str, Any], name: str, where: str) -> str:
    value = told[name]
    if value not in known:
        raise _wrong(where, name, f"none of {', '.join(known)}", known[1])
    return str(value)


def _names(told: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = told[name]
    if isinstance(value, str) and name == "supersedes":
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise _wrong(where, name, "not a list of names", "[hr, ana@acme.example]")
    return [item.strip() for item in value]


def _sorted(told: Mapping[str, Any], name: str, where: str) -> list[str]:
    return sorted(_names(told, name, where))


def _day(told: Mapping[str, Any], name: str, where: str) -> date:
    value = told[name]
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and len(value) == 10:
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise _wrong(where, name, "not a date", "2027-01-31")


def _days(told: Mapping[str, Any], name: str, where: str) -> int:
    try:
        return max(1, duration_ms(told[name]) // DAY_MS)
    except ValueError as error:
        raise _wrong(where, name, "no duration", "365d") from error


def _flag(told: Mapping[str, Any], name: str, where: str) -> bool:
    value = told[name]
    if not isinstance(value, bool):
        raise _wrong(where, name, "neither true nor false", "true")
    return value


_READ: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any], str, str], Any]]]] = {
    "owner": ("owner", _person),
    "steward": ("steward", _person),
    "licence": ("licence", _line),
    "state": ("state", partial(_one_of, STATES)),
    "sensitivity": ("sensitivity", partial(_one_of, SENSITIVITIES)),
    "purposes": ("purposes", _sorted),
    "workloads": ("workloads", _sorted),
    "residency": ("residency", _sorted),
    "valid_from": ("valid_from", _day),
    "valid_until": ("valid_until", _day),
    "review_every": ("review_days", _days),
    "retain": ("retain_days", _days),
    "legal_hold": ("legal_hold", _flag),
}
"""Key -> (field, how it is read)."""
