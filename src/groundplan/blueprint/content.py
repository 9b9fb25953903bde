"""Sources, the rules for their documents, the glossary, and what a workload asks of them."""

from __future__ import annotations

import msgspec

from groundplan.blueprint.limits import Grant


class Governed(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the documents of a source, unless one is stricter. Times are days."""

    steward: str | None = None
    state: str = "approved"
    purposes: list[str] = []
    workloads: list[str] = []
    residency: list[str] = []
    licence: str | None = None
    retain_days: int | None = None
    legal_hold: bool = False
    erase_days: int = 30


class Connector(msgspec.Struct, frozen=True, kw_only=True):
    """Where a source is read from; `settings` are those of its type in the catalog, secrets by reference only."""

    type: str
    settings: dict[str, str | int | float] = {}
    acl: dict[str, str] | None = None
    """Who the grantees of access lists that a store keeps are here; None: those are not read."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload asks of the content that it is given. `quality` is 0 to 1."""

    purposes: list[str] = []
    quality: float = 0.0
    scanned: bool = False


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """A word of the company's glossary."""

    name: str
    title: str
    meaning: str
    synonyms: list[str] = []
    forbidden: list[str] = []
    owner: str | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: str
    sensitivity: str
    owner: str
    readers: list[str]
    read: list[Grant] = []
    """Who reads it besides `readers`."""
    governed: Governed = Governed()
    connector: Connector | None = None
    """None: the folder `path` of the workspace."""
    checks: list[dict[str, str | int | float | bool | list[str]]] = []
    """Checks of columns of its tables, as declared."""
    characters: int | None = None
    """Most characters of a passage; None: as the index says."""
    pdf: str = "plain"
    """Who reads PDF: plain | docling."""


class IndexEmbedding(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that embeds, the workload that its calls are for, and the length of its vectors."""

    workload: str
    deployment: str
    dimensions: int


class Rerank(msgspec.Struct, frozen=True, kw_only=True):
    """Who puts the best passages in order, for which workload it is called, and how long it may take."""

    workload: str
    deployment: str
    passages: int = 30
    within_ms: int = 500


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """How all sources are cut and embedded for search."""

    characters: int = 400
    embedding: IndexEmbedding | None = None
    by_hand: bool = False
    """Whether somebody says when a new edition serves."""
    keep_days: int = 30
    questions: str | None = None
    """A file of labelled questions in the workspace."""


class Grounding(msgspec.Struct, frozen=True, kw_only=True):
    sources: list[str]
    passages: int = 4
    max_bytes: int = 6000
    """Most that grounding may add to a prompt; reserved at admission."""
    floor: float = 0.0
    """Below that confidence (0 to 1) no passage is given."""
    required: bool = True
    """True: cut off from the live permissions, a call is refused. A call for which no passage is found is answered."""
    synonyms: bool = False
    """Also search for what the glossary says for the words of a question."""
    rerank: Rerank | None = None
    """None: the order stays as words and vectors made it."""
