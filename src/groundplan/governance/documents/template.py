"""Templates of documents: sections by the law's own numbers, what each asks in our words, and the facts that answer it.

No text of laws is here. A template names its source and when it was read; a changed law is another file, not code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources

from groundplan.core.errors import NotFound

NAMES = ("annex-iv", "fria", "dpia")


@dataclass(frozen=True, slots=True)
class Section:
    """One section. `id`: number in the law; `facts`: names of facts that answer it, in order; empty: people do."""

    id: str
    title: str
    asks: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of document."""

    name: str
    title: str
    law: str
    source: str
    as_of: date
    note: str
    sections: tuple[Section, ...]


@cache
def load_template(name: str) -> Template:
    """The template of that name. Raises `NotFound` (`document_unknown`)."""
    if name not in NAMES:
        raise NotFound(
            f"there is no document {name[:63]}", code="document_unknown", hint=f"Take one of {', '.join(NAMES)}."
        )
    file = resources.files("groundplan.governance.documents") / "templates" / f"{name}.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    return Template(
        name=name,
        title=raw["title"],
        law=raw["law"],
        source=raw["source"],
        as_of=date.fromisoformat(raw["as_of"]),
        note=raw["note"],
        sections=tuple(
            Section(each["id"], each["title"], each["asks"], tuple(each["facts"])) for each in raw["sections"]
        ),
    )
