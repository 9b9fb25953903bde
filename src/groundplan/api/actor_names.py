"""Who did something, in words: "Ana Lind", "operator", or "you as Ana Lind" for what was done in a demo while acting.

Only names; the actor itself stays in every answer beside it. Somebody whose name was erased is told by their actor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api.caller import Caller
from groundplan.core.audit import Acting, Entry
from groundplan.core.audit.store import StoredEntry
from groundplan.identity import store as identity

_PERSON = "person:"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of some actors, for one viewer."""

    viewer: str
    """The actor who looks, whatever they act as."""
    people: Mapping[str, str]

    def of(self, actor: str) -> str:
        """`Ana Lind`, `operator`, `system`, `gateway`."""
        kind = actor.partition(":")[0]
        return self.people.get(actor, actor) if kind == "person" else kind

    def told(self, actor: str, acting: Acting | None) -> str:
        """As `of`; `you as Ana Lind` (or `operator as Ana Lind` for another viewer) where somebody acted as them."""
        if acting is None:
            return self.of(actor)
        by = "you" if acting.by == self.viewer else self.of(acting.by)
        return f"{by} as {self.of(acting.actor or actor)}"


def names_for(conn: Connection[Any], viewer: Caller, actors: Iterable[str]) -> Names:
    """The names of these actors."""
    ids = {actor: UUID(actor.removeprefix(_PERSON)) for actor in actors if actor.startswith(_PERSON)}
    found = identity.person_names(conn, list(ids.values())) if ids else {}
    return Names(viewer.real, {actor: found[id] for actor, id in ids.items() if id in found})


def entries_json(conn: Connection[Any], viewer: Caller, stored: Iterable[StoredEntry]) -> list[dict[str, Any]]:
    """Audit entries with `acting` (`{"by", "demo", "as"?}` or null), and `who` and `about` in words."""
    found = list(stored)
    names = names_for(conn, viewer, {actor for one in found for actor in (*_actors(one.entry), _about(one.entry))})
    return [
        {
            "id": str(one.entry.id),
            "index": one.leaf_index,
            "at": one.entry.at,
            "action": one.entry.action,
            "actor": one.entry.actor,
            "acting": None if one.entry.acting is None else one.entry.acting.to_json(),
            "who": names.told(one.entry.actor, one.entry.acting),
            "subject": one.entry.subject,
            "about": names.people.get(_about(one.entry), one.entry.subject),
            "detail": dict(one.entry.detail),
        }
        for one in found
    ]


def with_who(conn: Connection[Any], viewer: Caller, receipt: dict[str, Any]) -> dict[str, Any]:
    """A call's receipt with `who` made it, in words: the person it carries, and who asked as whom in a demo."""
    person = receipt["person_name"] or receipt["person"]
    acting = receipt["acting"]
    if acting is None:
        return {**receipt, "who": person}
    names = names_for(conn, viewer, (acting["as"], acting["by"]))
    asked = names.told(acting["as"], Acting(acting["by"]))
    same = acting["as"] == f"{_PERSON}{receipt['person_id']}"
    return {**receipt, "who": asked if same or person is None else f"{person}, asked by {asked}"}


def _about(entry: Entry) -> str:
    """The subject; where it is a person, as the actor that this person is."""
    return entry.subject.replace("person/", _PERSON, 1) if entry.subject.startswith("person/") else entry.subject


def _actors(entry: Entry) -> tuple[str, ...]:
    acting = entry.acting
    return (entry.actor,) if acting is None else (entry.actor, acting.by, acting.actor or entry.actor)
