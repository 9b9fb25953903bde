"""Names of actors for people: "Ana Lind", "operator", or "you as Ana Lind" for acting as somebody in a demo.

Only names; every response keeps the actor itself beside them. A person whose name was erased is shown by the actor.
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
class ActorNames:
    """The names of some actors, for one viewer."""

    viewer: str
    """The actor who views the names, whoever they act as."""
    people: Mapping[str, str]

    def of(self, actor: str) -> str:
        """The name of an actor: `Ana Lind`, `operator`, `system`, `gateway`."""
        kind = actor.partition(":")[0]
        return self.people.get(actor, actor) if kind == "person" else kind

    def told(self, actor: str, acting: Acting | None) -> str:
        """As `of`; `you as Ana Lind` (or `operator as Ana Lind` for another viewer) where somebody acted as them."""
        if acting is None:
            return self.of(actor)
        by = "you" if acting.by == self.viewer else self.of(acting.by)
        return f"{by} as {self.of(acting.actor or actor)}"


def load_names(conn: Connection[Any], viewer: Caller, actors: Iterable[str]) -> ActorNames:
    """Load the names of these actors."""
    ids = {actor: UUID(actor.removeprefix(_PERSON)) for actor in actors if actor.startswith(_PERSON)}
    found = identity.person_names(conn, list(ids.values())) if ids else {}
    return ActorNames(viewer.real, {actor: found[id] for actor, id in ids.items() if id in found})


def entries_json(conn: Connection[Any], viewer: Caller, stored: Iterable[StoredEntry]) -> list[dict[str, Any]]:
    """Audit entries with `acting` (`{"by", "demo", "as"?}` or null), and `who` and `about` in words."""
    found = list(stored)
    names = load_names(
        conn, viewer, {actor for one in found for actor in (*_actors(one.entry), _subject_actor(one.entry))}
    )
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
            "about": names.people.get(_subject_actor(one.entry), one.entry.subject),
            "detail": dict(one.entry.detail),
        }
        for one in found
    ]


def with_actor_name(conn: Connection[Any], viewer: Caller, receipt: dict[str, Any]) -> dict[str, Any]:
    """A call's receipt with `who`: the name of the person that it carries, and who acted as whom in a demo."""
    person = receipt["person_name"] or receipt["person"]
    acting = receipt["acting"]
    if acting is None:
        return {**receipt, "who": person}
    names = load_names(conn, viewer, (acting["as"], acting["by"]))
    asked = names.told(acting["as"], Acting(acting["by"]))
    same = acting["as"] == f"{_PERSON}{receipt['person_id']}"
    return {**receipt, "who": asked if same or person is None else f"{person}, asked by {asked}"}


def _subject_actor(entry: Entry) -> str:
    """The subject of an entry; for a person in the form of an actor (`person:ID`)."""
    return entry.subject.replace("person/", _PERSON, 1) if entry.subject.startswith("person/") else entry.subject


def _actors(entry: Entry) -> tuple[str, ...]:
    acting = entry.acting
    return (entry.actor,) if acting is None else (entry.actor, acting.by, acting.actor or entry.actor)
