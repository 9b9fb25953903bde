"""The effective values of a document: declared by its source, its folders and itself, then decided by people. Pure.

Somebody who may write a document may not open it further: folders and documents can only narrow what is declared above
them (a lower state, a higher sensitivity, fewer purposes). A decision of the owner or steward may widen. Each value
keeps its origin, and which declarations were ignored.
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
NEAREST_FIELDS: Final = ("owner", "steward", "licence")
"""Fields where the nearest declaration applies."""
SET_FIELDS: Final = ("purposes", "workloads", "residency")
"""Fields where only what every level allows remains; None is anything."""
FIELDS: Final = (
    *NEAREST_FIELDS, "state", "sensitivity", *SET_FIELDS, "valid_from", "valid_until", "review_days",
    "retain_days", "legal_hold",
)  # fmt: skip
DOCUMENT_KEYS: Final = (
    *NEAREST_FIELDS, "state", "sensitivity", *SET_FIELDS, "valid_from", "valid_until", "review_every",
    "retain", "legal_hold", "review_by", "supersedes", "readers", "deny", "title",
)  # fmt: skip
"""Keys of front matter and sidecar files that have a meaning."""
DOCUMENT_ORIGINS: Final = ("document", "sidecar")
"""Origins of a document's own declarations: its front matter, and its sidecar file."""
_PERMISSIONS: Final = ("readers", "deny", "sensitivity")
"""Keys without which a document would be open to more people: one that is certainly misspelt is refused."""
_STATE_ORDER: Final = {"approved": 0, "draft": 1, "superseded": 2, "retired": 2, "rejected": 2}
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Level:
    """The values declared at one level: `origin` is `source/NAME`, `folder/PATH`, `document` or `decision of ...`."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EffectiveValues:
    """Values by field, and their origins: `origins[field]` is {"from": origin, "ignored": [sentences]}."""

    values: Mapping[str, Any]
    origins: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class DeclaredValues:
    """Validated front matter or sidecar; `unknown` are keys that look like a misspelt key of ours."""

    values: Mapping[str, Any]
    readers: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    review_by: date | None = None
    supersedes: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


def effective_values(
    levels: Sequence[Level], decisions: Mapping[str, Mapping[str, Any]], digest: str
) -> EffectiveValues:
    """The values of the first level (the source), narrowed by the other levels, then overridden by decisions.

    An approval applies only to the content that was seen: with another `digest` it has lapsed.
    """
    values: dict[str, Any] = dict.fromkeys(FIELDS)
    values |= {"state": "approved", "sensitivity": "internal", "legal_hold": False}
    origins: dict[str, dict[str, Any]] = {}
    for index, level in enumerate(levels):
        for name, wanted in level.values.items():
            if name not in values or wanted is None:
                continue
            effective = wanted if index == 0 else stricter(name, values[name], wanted)
            ignored = origins.get(name, {}).get("ignored", [])
            if effective != wanted:
                ignored = [*ignored, f"{level.origin} says {_text_of(wanted)}, which is wider"]
            if effective != values[name] or (effective == wanted and name not in origins):
                origins[name] = {"from": level.origin}
            values[name] = effective
            if ignored:
                origins.setdefault(name, {"from": "default"})["ignored"] = ignored
    for name, decision in decisions.items():
        if name in values and not (name == "state" and _has_lapsed(decision, digest)):
            values[name] = decision["value"]
            origins[name] = {"from": f"decision of {decision['by']}", "at": decision.get("at")}
    return EffectiveValues(values, origins)


def keep_hold(
    effective: EffectiveValues, held_by: str | None, decisions: Mapping[str, Mapping[str, Any]]
) -> EffectiveValues:
    """Keep a legal hold that a folder or the document itself (`held_by`) set before and no longer declares: somebody
    who may write there must not end it. A decision ends it; the source's declaration ends the source's own."""
    is_inherited = held_by is not None and not held_by.startswith(("source/", "decision of "))
    if not is_inherited or effective.values["legal_hold"] or "legal_hold" in decisions:
        return effective
    origin = {"from": held_by, "ignored": [f"{held_by} no longer says legal_hold, which only a decision ends"]}
    return EffectiveValues({**effective.values, "legal_hold": True}, {**effective.origins, "legal_hold": origin})


def _has_lapsed(decision: Mapping[str, Any], digest: str) -> bool:
    return decision["value"] == "approved" and decision.get("digest") not in (None, digest)


def stricter(name: str, current: Any, wanted: Any) -> Any:
    """The stricter of the current and the wanted value of a field."""
    if name in NEAREST_FIELDS or current is None:
        return wanted
    if name == "state":
        return max(current, wanted, key=_STATE_ORDER.__getitem__)
    if name == "sensitivity":
        return max(current, wanted, key=SENSITIVITIES.index)
    if name in SET_FIELDS:
        return sorted(set(current) & set(wanted))
    if name == "legal_hold":
        return current or wanted
    if name == "valid_from":
        return max(current, wanted)
    return wanted if name == "retain_days" else min(current, wanted)


def _text_of(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def retained_until(changed: datetime, days: int | None) -> date | None:
    """The last day on which a document is kept, from when it was changed."""
    return None if days is None else add_days(changed.date(), days)


def add_days(day: date, days: int) -> date:
    """The day so many days later, at most `date.max`: a document may declare any number."""
    return day + timedelta(days=min(days, (date.max - day).days))


def parse_declared(declared: Mapping[str, Any], where: str) -> DeclaredValues:
    """Validate front matter or a sidecar (`where`, in words). Raises `Invalid` (front_matter) naming key and form."""
    for key in declared:
        if key not in DOCUMENT_KEYS and (
            name := next((name for name in _PERMISSIONS if _is_misspelling(key, name)), None)
        ):
            raise Invalid(
                f"`{key}` in its {where} is no key", code="front_matter", hint=f"Write `{name}` if that is meant."
            )
    values = {column: read(declared, name, where) for name, (column, read) in _PARSERS.items() if name in declared}
    readers = _names(declared, "readers", where) if "readers" in declared else None
    # `!name` denies, as in .readers and in columns of readers
    denied = [name[1:].strip() for name in readers or () if name.startswith("!")]
    if "" in denied:
        raise _invalid(where, "readers", "not a list of names", "[hr, ana@acme.example]")
    return DeclaredValues(
        values,
        None if readers is None else frozenset(_reader(name) for name in readers if not name.startswith("!")),
        frozenset(map(_reader, [*denied, *(_names(declared, "deny", where) if "deny" in declared else ())])),
        _day(declared, "review_by", where) if declared.get("review_by") is not None else None,
        tuple(_names(declared, "supersedes", where)) if "supersedes" in declared else (),
        dict(_similar_keys(declared)),
    )


def _is_misspelling(key: str, name: str) -> bool:
    """Whether a key is certainly a misspelling of `name`: other case, one letter more or less, or letters swapped."""
    typed = key.strip().lower()
    if typed == name or len(name) < 5:
        return typed == name
    longer, shorter = (typed, name) if len(typed) > len(name) else (name, typed)
    if len(longer) == len(shorter):
        return sorted(longer) == sorted(shorter)
    return any(longer[:at] + longer[at + 1 :] == shorter for at in range(len(longer)))


def _similar_keys(declared: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key in declared:
        if (
            key not in DOCUMENT_KEYS
            and not key.startswith("page_")
            and (near := difflib.get_close_matches(key, DOCUMENT_KEYS, 1, 0.84))
        ):
            yield key, near[0]


def _reader(name: str) -> str:
    return name.lower() if "@" in name else name


def _invalid(where: str, name: str, what: str, example: str) -> Invalid:
    return Invalid(f"`{name}` in its {where} is {what}", code="front_matter", hint=f"Write `{name}: {example}`.")


def _person(declared: Mapping[str, Any], name: str, where: str) -> str:
    value = declared[name]
    if not isinstance(value, str) or not is_email(value.strip().lower()):
        raise _invalid(where, name, "no e-mail address", "ana@acme.example")
    return value.strip().lower()


def _line(declared: Mapping[str, Any], name: str, where: str) -> str:
    value = declared[name]
    if not isinstance(value, str) or not value.strip() or len(value) > 400:
        raise _invalid(where, name, "no short text", "CC-BY-4.0")
    return value.strip()


def _one_of(known: Sequence[str], declared: Mapping[str, Any], name: str, where: str) -> str:
    value = declared[name]
    if value not in known:
        raise _invalid(where, name, f"none of {', '.join(known)}", known[1])
    return str(value)


def _names(declared: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = declared[name]
    if isinstance(value, str) and name == "supersedes":
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise _invalid(where, name, "not a list of names", "[hr, ana@acme.example]")
    return [item.strip() for item in value]


def _sorted(declared: Mapping[str, Any], name: str, where: str) -> list[str]:
    return sorted(_names(declared, name, where))


def _day(declared: Mapping[str, Any], name: str, where: str) -> date:
    value = declared[name]
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and len(value) == 10:
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise _invalid(where, name, "not a date", "2027-01-31")


def _days(declared: Mapping[str, Any], name: str, where: str) -> int:
    try:
        return max(1, duration_ms(declared[name]) // DAY_MS)
    except ValueError as error:
        raise _invalid(where, name, "no duration", "365d") from error


def _flag(declared: Mapping[str, Any], name: str, where: str) -> bool:
    value = declared[name]
    if not isinstance(value, bool):
        raise _invalid(where, name, "neither true nor false", "true")
    return value


_PARSERS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any], str, str], Any]]]] = {
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
"""Key -> (field, parser)."""
