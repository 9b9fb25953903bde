"""Sources, the rules for their documents, the search index, the glossary, and what workloads require of content."""

from __future__ import annotations

import msgspec

from groundplan.blueprint.limits import Grant


class Governed(msgspec.Struct, frozen=True, kw_only=True):
    """Rules for the documents of a source, unless a document is stricter. Durations are days."""

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
    """Where a source is read from; `settings` are those of its type in the catalog, with secrets by reference only."""

    type: str
    settings: dict[str, str | int | float] = {}
    acl: dict[str, str] | None = None
    """Grantee in the store's access lists -> person or group here; None: access lists are not read."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload requires of the content that it is given. `quality` is 0 to 1."""

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
    """Grants to read it, besides `readers`."""
    governed: Governed = Governed()
    connector: Connector | None = None
    """None: the folder `path` of the workspace."""
    checks: list[dict[str, str | int | float | bool | list[str]]] = []
    """Declared checks of columns of its tables."""
    characters: int | None = None
    """The most characters of a passage; None: as in the index."""
    pdf: str = "plain"
    """PDF parser: plain | docling."""


class IndexEmbedding(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment that embeds, the workload to which its calls belong, and the length of its vectors."""

    workload: str
    deployment: str
    dimensions: int


class Rerank(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment that reranks the best passages, the workload to which its calls belong, and the time limit."""

    workload: str
    deployment: str
    passages: int = 30
    within_ms: int = 500


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """How all sources are split and embedded for search."""

    characters: int = 400
    embedding: IndexEmbedding | None = None
    by_hand: bool = False
    """Whether a new edition serves only once a person switches to it."""
    keep_days: int = 30
    questions: str | None = None
    """A file with labelled questions in the workspace."""


class Grounding(msgspec.Struct, frozen=True, kw_only=True):
    sources: list[str]
    passages: int = 4
    max_bytes: int = 6000
    """The most bytes that grounding may add to a prompt; reserved at admission."""
    floor: float = 0.0
    """Confidence (0 to 1) below which no passage is given."""
    required: bool = True
    """True: without the live permissions a call is refused. A call for which no passage is found is answered."""
    synonyms: bool = False
    """Whether to also search for the glossary's synonyms of the words of a question."""
    rerank: Rerank | None = None
    """None: the order stays as given by words and vectors."""
