"""The semantic cache: answers to questions that mean the same, for workloads that declare a bound on wrong answers.
Asked after a miss of the exact cache.

Two questions are compared only within one frame: the same scope as in the exact cache (person, group or workload), the
same earlier conversation, parameters, prompt and deployments; only the newest question may differ. A match is served
like an exact hit, with live permissions and stop switches. Embeddings come from the local search service; if it does
not answer, a model is asked. `regions` decides which matches are checked against fresh answers.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from groundplan.blueprint.model import Semantic
from groundplan.gateway.caching.cache_key import frame_digest
from groundplan.gateway.caching.entry import Entry
from groundplan.gateway.caching.semantic_match import Calibration, Match, Question
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.search_client import ask_search
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.resuming.chat import ENDPOINT
from groundplan.gateway.surfaces import answer_text
from groundplan.gateway.upstream.connection import FOREVER, UpstreamFailure
from groundplan.knowledge.embedding.wire import PATH, WORD_BYTES, embed_answer, embed_request

if TYPE_CHECKING:
    from groundplan.economics.semantic.equivalence import Verdict
    from groundplan.economics.semantic.reading import Reading
    from groundplan.economics.semantic.similarity import EmbeddedReading
    from groundplan.gateway.caching.semantic_checks import CheckStore
    from groundplan.gateway.caching.semantic_counts import SemanticCounts
    from groundplan.gateway.caching.semantic_frame import Frame
    from groundplan.gateway.call.context import Gateway


MAX_QUESTION_CHARS = 2000
"""Characters of the longest question that is compared."""
MAX_FRAMES = 2000
MAX_QUESTIONS = 5_000
"""Limit of questions of all frames of a worker, some 20 kB each; the least recently used frames are dropped first."""
MAX_CANDIDATES = 3
"""How many of the most similar questions with a kept answer are judged."""
MAX_WAIT_SECONDS = 1.0
"""Longest wait of a call for its question's embedding; never more than half of its deadline."""
PAUSE_SECONDS = 2.0
"""How long no question is embedded after the search service failed to answer."""
MIN_AGREEMENT = 0.8
"""Lowest cosine of two answers that agree."""
MAX_DIFFERING_WORDS = 2
"""Up to so many differing words decide by themselves whether two answers agree."""


@dataclass(slots=True)
class Counts:
    """Counts of one workload in this worker: look-ups, answers given, matches checked, and those found wrong."""

    looked: int = 0
    given: int = 0
    checked: int = 0
    wrong: int = 0


class SemanticCache:
    """The semantic cache of one worker."""

    def __init__(self, gateway: Gateway, dice: Callable[[], float] = random.random) -> None:
        self._gateway = gateway
        self._dice = dice
        self._frames: OrderedDict[bytes, Frame] = OrderedDict()
        self._question_count = 0
        self._calibrations: dict[str, Calibration] = {}
        self._paused_until = 0.0
        """Loop time before which no question is embedded, because the search service did not answer."""
        self.counts: dict[str, Counts] = {}
        self.tally: SemanticCounts | None = None
        """Adds the counts to PostgreSQL."""
        self.checks: CheckStore | None = None
        """Shares results of checks with other workers."""

    # looking up -------------------------------------------------------------------------------------------------------

    async def __call__(self, exchange: Exchange, entries: Iterator[Entry]) -> Entry | None:  # noqa: ARG002
        """The kept answer to a question that means the same; None: ask a model. Sets `compared_question` of the call,
        and `semantic_match` if the fresh answer is to be compared with a match."""
        rule, now = _semantic_rule(exchange), self._gateway.loop.time()
        if rule is None or exchange.compared_question is not None or now < self._paused_until:
            return None
        started, entry = time.perf_counter_ns(), None
        try:
            question = exchange.compared_question = await self._read_question(exchange)
            if question is None:
                return None
            entry = self._match(exchange, rule, question)
        except (UpstreamFailure, msgspec.DecodeError, UnicodeDecodeError):
            self._gateway.targets.forget("search")
            self._paused_until = self._gateway.loop.time() + PAUSE_SECONDS
        exchange.waited_seconds += self._gateway.loop.time() - now
        if self.tally is not None and exchange.workload is not None:
            self.tally.add_lookup(exchange.workload.name, (time.perf_counter_ns() - started) // 1000)
        return entry

    def _match(self, exchange: Exchange, rule: Semantic, question: Question) -> Entry | None:
        name = exchange.workload.name if exchange.workload is not None else ""
        from groundplan.economics.semantic.differences import kind_digests  # noqa: PLC0415 -- numpy, only where it is used

        counts = self.counts.setdefault(name, Counts())
        counts.looked += 1
        nearest = self._nearest(name, question)
        if nearest is None:
            return None
        entry, verdict = nearest
        calibration = self.calibration(name, rule)
        region = calibration.regions.region_of(question.embedded.vector)
        kinds = kind_digests(verdict.kinds)
        if verdict.veto and not calibration.regions.was_seen(*kinds):
            return None
        decision = calibration.regions.decide(
            region, verdict.score, self._dice(), kinds, kind_digests(verdict.unproven)
        )
        if decision == "check":
            refused = bool(verdict.veto) and not calibration.regions.are_proven_kinds(kinds)
            exchange.semantic_match = Match(entry, calibration, None if refused else region, verdict.score, kinds)
        return entry if decision == "give" else None

    def record_hit(self, entry: Entry) -> None:
        """Count a match that was served. (Permissions, limits or the form of the answer may still refuse one.)"""
        counts = self.counts.setdefault(entry.workload, Counts())
        counts.given += 1
        if self.tally is not None:
            self.tally.add_hit(entry.workload, entry.cost)

    def _nearest(self, name: str, question: Question) -> tuple[Entry, Verdict] | None:
        """The kept answer whose question most surely means the same, with the verdict."""
        from groundplan.economics.semantic import equivalence  # noqa: PLC0415 -- numpy, only where it is used

        frame = self._frames.get(question.frame)
        if frame is None:
            return None
        now = self._gateway.clock.now().timestamp()
        kept = (
            (entry, embedded)
            for key, embedded in frame.nearest(question.embedded.vector, equivalence.MIN_COSINE)
            if (entry := self._gateway.answer_cache.get(name, key, now)) is not None
        )
        judged = [
            (entry, equivalence.judge(equivalence.load_acceptance(), question.embedded, embedded))
            for entry, embedded in islice(kept, MAX_CANDIDATES)
        ]
        if not judged:
            return None
        entry, verdict = max(judged, key=lambda each: (not each[1].veto, each[1].score))
        return None if verdict.score == -inf else (entry, verdict)

    async def _read_question(self, exchange: Exchange) -> Question | None:
        from groundplan.economics.semantic.phrasing import read_question  # noqa: PLC0415 -- numpy, only where it is used

        plan, policy, replay_forms = exchange.plan, exchange.policy, exchange.interface.replay_forms
        if plan is None or policy is None or replay_forms is None:
            return None
        framed = frame_digest(exchange, replay_forms.ignored_fields, self._gateway.answer_cache.terms(plan), policy)
        if framed is None or not 0 < len(framed[1]) <= MAX_QUESTION_CHARS:
            return None
        reading = read_question(framed[1])
        seconds = min(MAX_WAIT_SECONDS, plan.workload.deadline_ms / 2000)
        (embedded,) = await self._embed([(reading, reading.spans)], exchange, seconds)
        return Question(framed[0], embedded)

    async def _embed(
        self,
        requested: Sequence[tuple[Reading, Sequence[tuple[int, int]]]],
        exchange: Exchange,
        seconds: float = FOREVER,
    ) -> list[EmbeddedReading]:
        """Embed texts, each with the words at these spans, within so many seconds. Raises `UpstreamFailure`."""
        import numpy as np  # noqa: PLC0415 -- heavy, only where it is used

        from groundplan.economics.semantic.similarity import EmbeddedReading  # noqa: PLC0415 -- as above

        texts, places = [reading.text for reading, _ in requested], [each for _, each in requested]
        body = embed_request(texts, places=places)
        name = str(exchange.call).encode("ascii")
        answer = embed_answer(await ask_search(self._gateway, body, name, PATH, seconds=seconds), len(texts), places)
        return [
            EmbeddedReading(
                reading,
                np.frombuffer(vector, dtype="<f4").astype(np.float32),
                np.frombuffer(words, dtype=np.int8).reshape(len(spans), WORD_BYTES),
            )
            for (reading, spans), vector, words in zip(requested, answer.vectors, answer.words, strict=True)
        ]

    def calibration(self, name: str, rule: Semantic) -> Calibration:
        """Results of checks of a workload, updated with those of other workers."""
        from groundplan.economics.semantic import equivalence, regions  # noqa: PLC0415 -- numpy, only where it is used

        calibration, checks = self._calibrations.get(name), self.checks
        if calibration is None or calibration.rule != rule:
            acceptance = equivalence.load_acceptance()
            threshold = acceptance.threshold(rule.bound)
            fresh = regions.Regions(rule.bound, rule.check, rule.evidence, threshold)
            calibration = self._calibrations[name] = Calibration(
                rule, fresh, (name, f"{acceptance.version} {rule.bound:g} {threshold:g}")
            )
        if checks is not None and calibration.version != checks.version:
            calibration.version = checks.version
            calibration.regions.load(checks.learned(calibration.terms))
        return calibration

    # after a model answered -------------------------------------------------------------------------------------------

    def record_answer(self, entry: Entry, exchange: Exchange) -> None:
        """Add the question of a newly kept answer to its frame; if the call was a check, compare both answers."""
        question = exchange.compared_question
        if question is None:
            return
        from groundplan.gateway.caching.semantic_frame import Frame  # noqa: PLC0415 -- numpy, only where it is used

        frame = self._frames.setdefault(question.frame, Frame())
        self._frames.move_to_end(question.frame)
        self._question_count += frame.add(entry.key, question.embedded)
        while len(self._frames) > MAX_FRAMES or self._question_count > MAX_QUESTIONS:
            _, dropped = self._frames.popitem(last=False)
            self._question_count -= len(dropped.keys)
        if exchange.semantic_match is not None:
            self._gateway.run_in_background(self._compare_answers(entry, exchange, exchange.semantic_match))

    async def _compare_answers(self, entry: Entry, exchange: Exchange, match: Match) -> None:
        """Compare the fresh answer with the one of the match, and learn from the result."""
        one, other = _read_answer(exchange, entry), _read_answer(exchange, match.entry)
        if one is None or other is None:
            return
        try:
            same = one.calls == other.calls and await self._answers_agree(one.text, other.text, exchange)
        except (UpstreamFailure, msgspec.DecodeError):
            return
        calibration, region = match.calibration, match.region
        if region is not None:
            counts = self.counts.setdefault(entry.workload, Counts())
            counts.checked += 1
            counts.wrong += not same
            if self.tally is not None:
                self.tally.add_check(entry.workload, wrong=not same)
        # the kept answer stays: it is right for its own question
        calibration.regions.learn(region, match.score, same, match.kinds)
        if self.checks is not None:
            if region is not None:
                self.checks.add(calibration.terms, region.first, wrong=not same, raised=region.raised)
            for kind in calibration.regions.kinds.keys() & match.kinds:
                self.checks.add(calibration.terms, kind, wrong=not same, raised=-inf)

    async def _answers_agree(self, one: str, other: str, exchange: Exchange) -> bool:
        if one.split() == other.split() or not (one and other):
            return one.split() == other.split()
        from groundplan.economics.semantic import similarity, substitution  # noqa: PLC0415 -- numpy, only where it is used
        from groundplan.economics.semantic.guards import find_contradiction  # noqa: PLC0415 -- as above
        from groundplan.economics.semantic.reading import read  # noqa: PLC0415 -- numpy, only where it is used

        a, b = read(one), read(other)
        if find_contradiction(a, b):
            return False
        found = similarity.align(a, b)
        few = 0 < len(found.ours) == len(found.theirs) <= MAX_DIFFERING_WORDS
        ours, theirs = (found.ours, found.theirs) if few else ([], [])
        first, second = await self._embed(
            [(a, [a.spans[place] for place in ours]), (b, [b.spans[place] for place in theirs])], exchange
        )
        if similarity.cosine(first, second) < MIN_AGREEMENT:
            return False
        return not few or substitution.words_agree(first, second, ours, theirs)


def _semantic_rule(exchange: Exchange) -> Semantic | None:
    workload, ask = exchange.workload, exchange.ask
    if workload is None or workload.cache is None or ask is None:
        return None
    is_text_chat = (
        exchange.endpoint == ENDPOINT
        and not ask.images
        and not ask.audio_kib
        and "file" not in ask.needs
        and ask.copies == 1
    )
    return workload.cache.semantic if is_text_chat else None


class _Answer(NamedTuple):
    """The text of an answer, and its function calls in canonical form."""

    text: str
    calls: list[str]


_body = msgspec.json.Decoder(dict[str, Any]).decode


def _read_answer(exchange: Exchange, entry: Entry) -> _Answer | None:
    """Read an answer; None if it has neither text nor calls."""
    replay_forms: Any = exchange.interface.replay_forms
    data = entry.whole if entry.whole is not None else replay_forms.to_whole(entry.events or ())
    try:
        body = _body(data or b"")
    except DECODE_ERRORS:
        return None
    answer = _Answer(
        answer_text.visible_text(body), [answer_text.canonical_call(call) for call in answer_text.call_texts(body)]
    )
    return answer if answer.text or answer.calls else None
