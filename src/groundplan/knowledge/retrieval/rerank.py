"""Reranking of the best passages by a declared deployment. It only gets passages that the live permissions confirmed,
and removes none: if it is late, fails or answers nonsense, the order by words and vectors stays, and the answer says
why.

`search` chooses the passages; this module reads neither permissions nor the database.
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
"""After a failure, a deployment is not asked again for this long, so that not every question waits for it."""


class Reranker(Protocol):
    """Orders texts by relevance to a question."""

    def order(self, query: str, texts: Sequence[str]) -> list[int]:
        """The indices of all texts, the most relevant first. Raises `Unavailable`."""
        ...


class _Result(msgspec.Struct, frozen=True):
    index: int
    relevance_score: float


class _Results(msgspec.Struct, frozen=True):
    results: list[_Result]


_results = msgspec.json.Decoder(_Results)


class DeployedReranker:
    """A `Reranker` that asks a deployment through the gateway. Thread-safe."""

    def __init__(self, home: Home, rule: Rerank) -> None:
        self._home, self._rule = home, rule

    def order(self, query: str, texts: Sequence[str]) -> list[int]:
        rule = self._rule
        body = {"model": rule.deployment, "query": query, "documents": list(texts)}
        data = gateway_client.post_to_gateway(self._home, rule.workload, "/rerank", body, rule.within_ms / 1000)
        try:
            found = _results.decode(data).results
        except msgspec.DecodeError as error:
            raise _invalid_answer("its answer has no order") from error
        if sorted(one.index for one in found) != list(range(len(texts))):
            raise _invalid_answer(f"it put {len(found)} in order of {len(texts)} passages")
        # equal ones stay in the order by words and vectors
        return [one.index for one in sorted(found, key=lambda one: (-one.relevance_score, one.index))]


class RerankStep:
    """The reranking step of a search; pauses a deployment after a failure. Thread-safe."""

    def __init__(self, deployed: Callable[[Rerank], Reranker] | None) -> None:
        """`deployed` returns the reranker of a rule; None: there is none in this process."""
        self._deployed = deployed
        self._lock = threading.Lock()
        self._paused: dict[Rerank, tuple[float, str]] = {}

    def rerank(self, rule: Rerank, query: str, passages: Sequence[ReadableChunk]) -> tuple[Step, dict[str, int]]:
        """The step as reported, and text -> its new place; empty where the order stays as it is."""
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
    """The ranking with the passages in `places` reordered; the others keep their scores.

    The scores of the reordered passages are reassigned along the new order, and overdue ones are halved again: a
    reranker knows what a text is about, not whether it is still valid. `best` is demoted and has each text once.
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
