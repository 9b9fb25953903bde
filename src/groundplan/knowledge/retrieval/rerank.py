"""The best passages put in order by a declared deployment. It is sent what the live permissions have confirmed, and
takes nothing away: late, refused or not understood, the order of words and vectors stays, and the answer says why.

Which passages are sent is `search`; permissions and the database are not looked at here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Final, Protocol

import msgspec

from groundplan.blueprint.content import Rerank
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.knowledge import gateway_client
from groundplan.knowledge.retrieval import fuse
from groundplan.knowledge.retrieval.search_store import ReadableChunk
from groundplan.knowledge.retrieval.wire import Step

_PAUSE_SECONDS: Final = 5.0
"""One that is away or late costs its time once in so many seconds, not at every question."""


class Reranker(Protocol):
    """Whatever puts texts in order for a question."""

    def order(self, query: str, texts: Sequence[str]) -> list[int]:
        """The places of all texts, the most relevant first. Raises `Unavailable`."""
        ...


class _Result(msgspec.Struct, frozen=True):
    index: int
    relevance_score: float


class _Results(msgspec.Struct, frozen=True):
    results: list[_Result]


_results = msgspec.json.Decoder(_Results)


class DeployedReranker:
    """A `Reranker` of one deployment, asked of the gateway. Threads may share it."""

    def __init__(self, home: Home, rule: Rerank) -> None:
        self._home, self._rule = home, rule

    def order(self, query: str, texts: Sequence[str]) -> list[int]:
        rule = self._rule
        body = {"model": rule.deployment, "query": query, "documents": list(texts)}
        data = gateway_client.ask(self._home, rule.workload, "/rerank", body, rule.within_ms / 1000)
        try:
            found = _results.decode(data).results
        except msgspec.DecodeError as error:
            raise _invalid_answer("its answer has no order") from error
        if sorted(one.index for one in found) != list(range(len(texts))):
            raise _invalid_answer(f"it put {len(found)} in order of {len(texts)} passages")
        # of equal ones the better by words and vectors, which stand in that order
        return [one.index for one in sorted(found, key=lambda one: (-one.relevance_score, one.index))]


class RerankStep:
    """Asks whoever is declared, and not again at once where that went wrong. Threads may share it."""

    def __init__(self, deployed: Callable[[Rerank], Reranker] | None) -> None:
        """`deployed` gives what reranks by a rule; None: nobody can be asked here."""
        self._deployed = deployed
        self._lock = threading.Lock()
        self._paused: dict[Rerank, tuple[float, str]] = {}

    def rerank(self, rule: Rerank, query: str, passages: Sequence[ReadableChunk]) -> tuple[Step, dict[str, int]]:
        """The step, and the place of each text; none where the order stays as it is."""
        begun = time.monotonic()
        with self._lock:
            until, reason = self._paused.get(rule, (0.0, ""))
        if begun < until or self._deployed is None:
            return _step(rule, passages, begun, reason or "no deployment can be asked here"), {}
        try:
            texts = ["\n".join(filter(None, (one.title, one.head, one.text))) for one in passages]
            order = self._deployed(rule).order(query, texts)
        except Unavailable as error:
            with self._lock:
                self._paused[rule] = (time.monotonic() + _PAUSE_SECONDS, error.message)
            return _step(rule, passages, begun, error.message), {}
        with self._lock:
            self._paused.pop(rule, None)
        return _step(rule, passages, begun), {passages[index].text: place for place, index in enumerate(order)}


def _step(rule: Rerank, passages: Sequence[ReadableChunk], begun: float, skipped: str = "") -> Step:
    took = round((time.monotonic() - begun) * 1000, 1)
    return Step(name="rerank", deployment=rule.deployment, passages=len(passages), ms=took, skipped=skipped)


def apply_order(best: fuse.RankedChunks, places: Mapping[str, int], today: date) -> fuse.RankedChunks:
    """The passages whose texts have a place in that order; the others stay behind them as they are.

    The scores of those are handed out anew along the order, and what is overdue counts half again: a reranker knows
    what a text is about, not whether it still holds. `best` is demoted, each text once.
    """
    chosen = [(chunk, score) for chunk, score in best if chunk.text in places]
    scores = sorted((score / fuse.review_weight(chunk, today) for chunk, score in chosen), reverse=True)
    chosen.sort(key=lambda each: places[each[0].text])
    rescored = [
        (chunk, score * fuse.review_weight(chunk, today)) for (chunk, _), score in zip(chosen, scores, strict=True)
    ]
    # stable: of equal scores the reranker's order holds
    return sorted([*rescored, *(each for each in best if each[0].text not in places)], key=lambda each: -each[1])


def _invalid_answer(reason: str) -> Unavailable:
    return Unavailable(reason, code="rerank_answer", hint="Look at the calls of its workload.")
