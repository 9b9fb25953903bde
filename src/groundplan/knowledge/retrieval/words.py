"""Word search (BM25) over all chunks: a projection of PostgreSQL on this host that can be thrown away at any time.

It knows no permissions and gives ids only, never a text: what it proposes, PostgreSQL disposes of. One process writes
it.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import tantivy

from groundplan.core.home import write_atomically
from groundplan.knowledge.store import FedChunk

FORMAT = 2
"""Changes with the fields or the analyzer; the projection of another format is not read."""

MAX_TERMS = 64
_STOP_WORDS: Final = tuple(
    """
    a about all also am an and any are as at be been being but by can could did do does doing done for from had
    has have having he her hers him his how i if in into is it its just many may me might mine much must my no
    not of on or our ours please shall she should so some such tell than that the their theirs them then there
    these they this those to too us very was we were what when where which who whom whose why will with would
    you your yours
    """.split()  # noqa: SIM905 -- a hundred quoted words are no easier to read
)
"""Words that a question has because it is one, not because of what it is about."""

_HEAP_BYTES = 15_000_000
_ANALYZER = "words"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A chunk that matches words of a question; `score` is BM25 and compares within one question only."""

    chunk: UUID
    score: float


class WordIndex:
    """The index below a folder, with the number of the last change that it has taken over (`cursor`)."""

    def __init__(self, folder: Path) -> None:
        """Open what is there; where that is damaged, or of another format, begin with an empty index and cursor 0."""
        self._folder = folder / f"words-{FORMAT}"
        self._state = folder / f"words-{FORMAT}.json"
        self._analyzer = _analyzer()
        self._lock = threading.Lock()
        self._index: Any = None
        self._writer: Any = None
        self.cursor = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._open()
        except (ValueError, OSError):
            self._discard()

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self.cursor = int(json.loads(self._state.read_bytes())["cursor"]) if self._state.exists() else 0
        self._index = tantivy.Index(_schema(), path=str(self._folder), reuse=self._state.exists())
        self._index.register_tokenizer(_ANALYZER, self._analyzer)
        self._writer = self._index.writer(heap_size=_HEAP_BYTES, num_threads=1)
        self._index.reload()

    def _discard(self) -> None:
        self._writer = self._index = None
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._open()

    def reset(self) -> None:
        """Forget everything; the next changes are taken over from the first one on."""
        with self._lock:
            self._writer.delete_all_documents()
            self._writer.commit()
            self._index.reload()
            self._remember(0)

    @property
    def count(self) -> int:
        """Number of chunks in the index."""
        return int(self._index.searcher().num_docs)

    def take(self, documents: Sequence[UUID], chunks: Sequence[FedChunk], cursor: int) -> None:
        """Replace all chunks of `documents` by `chunks`; `cursor` is the number of the last change among them.

        The index is durable before the cursor: a kill in between means that the same changes are taken over again.
        """
        with self._lock:
            for document in documents:
                self._writer.delete_documents_by_term("document", str(document))
            for chunk in chunks:
                self._writer.add_document(_entry(chunk))
            self._writer.commit()
            self._index.reload()
            self._remember(cursor)

    def _remember(self, cursor: int) -> None:
        write_atomically(self._state, json.dumps({"cursor": cursor}).encode())
        self.cursor = cursor

    def propose(self, query: str, sources: Sequence[str], limit: int) -> list[Proposal]:
        """At most `limit` chunks of these sources that share a word with the question, best first."""
        words = self._analyzer.analyze(query)
        terms = list(dict.fromkeys(word for word in words if word))[:MAX_TERMS]
        if not terms or not sources:
            return []
        searcher = self._index.searcher()
        found = searcher.search(self._query(terms, sources), limit=limit, count=False).hits
        return [Proposal(UUID(searcher.doc(address)["chunk"][0]), float(score)) for score, address in found]

    def _query(self, terms: Sequence[str], sources: Sequence[str]) -> Any:
        schema = self._index.schema
        wanted = []
        for term in terms:
            wanted.append((tantivy.Occur.Should, tantivy.Query.term_query(schema, "text", term)))
            title = tantivy.Query.term_query(schema, "title", term)
            wanted.append((tantivy.Occur.Should, tantivy.Query.boost_query(title, 0.5)))
        within = tantivy.Query.term_set_query(schema, "source", list(sources))
        # sources only filter: they add the same to every score
        filter_only = tantivy.Query.const_score_query(within, 0.0)
        return tantivy.Query.boolean_query(
            [(tantivy.Occur.Must, tantivy.Query.boolean_query(wanted)), (tantivy.Occur.Must, filter_only)]
        )


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("chunk", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("document", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("source", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("title", tokenizer_name=_ANALYZER, index_option="freq")
    builder.add_text_field("text", tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()


def _analyzer() -> Any:
    """Words in lower case without accents, stop words or endings (English; other languages keep their words whole)."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for one in (
        tantivy.Filter.remove_long(60),
        tantivy.Filter.lowercase(),
        tantivy.Filter.ascii_fold(),
        tantivy.Filter.custom_stopword(list(_STOP_WORDS)),
        tantivy.Filter.stemmer("english"),
    ):
        builder = builder.filter(one)
    return builder.build()


def _entry(chunk: FedChunk) -> Any:
    return tantivy.Document(
        chunk=str(chunk.id), document=str(chunk.document), source=chunk.source, title=chunk.title, text=chunk.text
    )
