"""Display names of actors: "Ana Lind", "operator", or "you as Ana Lind" if somebody acted as another person in a demo.

Responses contain the actor itself beside the name. A person whose name was erased is shown by the actor.
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
    """The display names of some actors, for one viewer."""

    viewer: str
    """The actor who really views the names, even while acting as somebody else."""
    people: Mapping[str, str]

    def of(self, actor: str) -> str:
        """The display name of an actor: `Ana Lind`, `operator`, `system`, `gateway`."""
        kind = actor.partition(":")[0]
        return self.people.get(actor, actor) if kind == "person" else kind

    def with_acting(self, actor: str, acting: Acting | None) -> str:
        """As `of`, but `you as Ana Lind` (for another viewer `operator as Ana Lind`) if somebody acted as that
        person."""
        if acting is None:
            return self.of(actor)
        by = "you" if acting.by == self.viewer else self.of(acting.by)
        return f"{by} as {self.of(acting.actor or actor)}"


def load_names(conn: Connection[Any], viewer: Caller, actors: Iterable[str]) -> ActorNames:
    """Load the names of these actors."""
    ids = {actor: UUID(actor.removeprefix(_PERSON)) for actor in actors if actor.startswith(_PERSON)}
    names = identity.person_names(conn, list(ids.values())) if ids else {}
    return ActorNames(viewer.real, {actor: names[id] for actor, id in ids.items() if id in names})


def entries_json(conn: Connection[Any], viewer: Caller, stored: Iterable[StoredEntry]) -> list[dict[str, Any]]:
    """Audit entries as JSON with `acting` (`{"by", "demo", "as"?}` or null), and the display names `who` (actor) and
    `about` (subject)."""
    entries = list(stored)
    names = load_names(
        conn, viewer, {actor for item in entries for actor in (*_actors(item.entry), _subject_actor(item.entry))}
    )
    return [
        {
            "id": str(item.entry.id),
            "index": item.leaf_index,
            "at": item.entry.at,
            "action": item.entry.action,
            "actor": item.entry.actor,
            "acting": None if item.entry.acting is None else item.entry.acting.to_json(),
            "who": names.with_acting(item.entry.actor, item.entry.acting),
            "subject": item.entry.subject,
            "about": names.people.get(_subject_actor(item.entry), item.entry.subject),
            "detail": dict(item.entry.detail),
        }
        for item in entries
    ]


def with_actor_name(conn: Connection[Any], viewer: Caller, receipt: dict[str, Any]) -> dict[str, Any]:
    """The receipt of a call with `who`: the name of its person and, in a demo, of whoever acted as them."""
    person = receipt["person_name"] or receipt["person"]
    acting = receipt["acting"]
    if acting is None:
        return {**receipt, "who": person}
    names = load_names(conn, viewer, (acting["as"], acting["by"]))
    acting_name = names.with_acting(acting["as"], Acting(acting["by"]))
    same = acting["as"] == f"{_PERSON}{receipt['person_id']}"
    return {**receipt, "who": acting_name if same or person is None else f"{person}, asked by {acting_name}"}


def _subject_actor(entry: Entry) -> str:
    """The subject of an entry; for a person in the form of an actor (`person:ID`)."""
    return entry.subject.replace("person/", _PERSON, 1) if entry.subject.startswith("person/") else entry.subject


def _actors(entry: Entry) -> tuple[str, ...]:
    acting = entry.acting
    return (entry.actor,) if acting is None else (entry.actor, acting.by, acting.actor or entry.actor)
