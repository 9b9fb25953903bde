"""Templates of documents: sections by the law's own numbers, what each asks in our words, and which facts answer it.

No law's text is here. A template says its source and as of when it was read; changed law is another file, no code.
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
    """`id` is the number in the law; `facts` name what answers it, in order; empty: only people can say it."""

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
def template(name: str) -> Template:
    """Raises `NotFound` (`document_unknown`)."""
    if name not in NAMES:
        raise NotFound(
            f"there is no document {name[:63]}", code="document_unknown", hint=f"Take one of {', '.join(NAMES)}."
        )
    file = resources.files("groundplan.governance.documents") / "templates" / f"{name}.json"
    read = json.loads(file.read_text(encoding="utf-8"))
    return Template(
        name=name,
        title=read["title"],
        law=read["law"],
        source=read["source"],
        as_of=date.fromisoformat(read["as_of"]),
        note=read["note"],
        sections=tuple(
            Section(each["id"], each["title"], each["asks"], tuple(each["facts"])) for each in read["sections"]
        ),
    )
