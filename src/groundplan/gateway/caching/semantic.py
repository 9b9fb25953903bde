"""The semantic cache: answers to questions that mean the same, for workloads that declare a bound on wrong ones; asked
after an exact miss.

Two questions are compared only within one frame: the same person, group or workload as the exact cache shares with, the
same earlier conversation, parameters, prompt and deployments, word for word; only the newest question may differ. What
is found is given like an exact hit, live permissions and stop switches included. Embeddings come from the local search
service; where it does not answer, a model is asked. Matches are checked against fresh answers as `regions` says.
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
from groundplan.gateway.call.ground import ask_search
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
"""Of all frames of a worker, some 20 kB each; what was asked in longest ago goes first."""
MAX_CANDIDATES = 3
"""Of the likest questions whose answers are still there, how many are judged."""
MAX_WAIT_SECONDS = 1.0
"""Longest that a call waits for what its question means, and never more than half of its deadline."""
PAUSE_SECONDS = 2.0
"""After the search service said nothing of one question, for so long no other is asked about."""
MIN_AGREEMENT = 0.8
"""Likeness of two answers that say the same."""
MAX_DIFFERING_WORDS = 2
"""Words by which two answers may differ alone, so that these decide whether they say the same."""


@dataclass(slots=True)
class Counts:
    """Of one workload in this worker."""

    looked: int = 0
    given: int = 0
    checked: int = 0
    wrong: int = 0


class SemanticCache:
    """Of one worker."""

    def __init__(self, gateway: Gateway, dice: Callable[[], float] = random.random) -> None:
        self._gateway = gateway
        self._dice = dice
        self._frames: OrderedDict[bytes, Frame] = OrderedDict()
        self._question_count = 0
        self._taught: dict[str, Calibration] = {}
        self._paused_until = 0.0
        """Until then calls do without: the search service said nothing a moment ago."""
        self.counts: dict[str, Counts] = {}
        self.tally: SemanticCounts | None = None
        """Where the counts are kept beyond this worker."""
        self.checks: CheckStore | None = None
        """Where what checks taught is kept beyond this worker."""

    # looking up -------------------------------------------------------------------------------------------------------

    async def __call__(self, exchange: Exchange, entries: Iterator[Entry]) -> Entry | None:  # noqa: ARG002
        """The answer to a question that means the same; None: a model is asked. Notes at the call what it asked, and
        what its answer is to be compared with."""
        rule, now = _semantic_rule(exchange), self._gateway.loop.time()
        if rule is None or exchange.compared_question is not None or now < self._paused_until:
            return None
        began, found = time.perf_counter_ns(), None
        try:
            asked = exchange.compared_question = await self._read_question(exchange)
            if asked is None:
                return None
            found = self._match(exchange, rule, asked)
        except (UpstreamFailure, msgspec.DecodeError, UnicodeDecodeError):
            self._gateway.targets.forget("search")
            self._paused_until = self._gateway.loop.time() + PAUSE_SECONDS
        exchange.waited_seconds += self._gateway.loop.time() - now
        if self.tally is not None and exchange.workload is not None:
            self.tally.add_lookup(exchange.workload.name, (time.perf_counter_ns() - began) // 1000)
        return found

    def _match(self, exchange: Exchange, rule: Semantic, asked: Question) -> Entry | None:
        name = exchange.workload.name if exchange.workload is not None else ""
        from groundplan.economics.semantic.differences import kind_digests  # noqa: PLC0415 -- numpy, only where it is used

        counts = self.counts.setdefault(name, Counts())
        counts.looked += 1
        found = self._nearest(name, asked)
        if found is None:
            return None
        entry, verdict = found
        calibration = self.calibration(name, rule)
        region = calibration.regions.region_of(asked.said.vector)
        kinds = kind_digests(verdict.kinds)
        if verdict.veto and not calibration.regions.was_met(*kinds):
            return None
        decided = calibration.regions.decide(region, verdict.score, self._dice(), kinds, kind_digests(verdict.unproven))
        if decided == "check":
            refused = bool(verdict.veto) and not calibration.regions.are_proven_kinds(kinds)
            exchange.semantic_match = Match(entry, calibration, None if refused else region, verdict.score, kinds)
        return entry if decided == "give" else None

    def record_hit(self, entry: Entry) -> None:
        """What was found was given: permissions, limits and form could still refuse it before."""
        counts = self.counts.setdefault(entry.workload, Counts())
        counts.given += 1
        if self.tally is not None:
            self.tally.add_hit(entry.workload, entry.cost)

    def _nearest(self, name: str, asked: Question) -> tuple[Entry, Verdict] | None:
        """The kept answer whose question is surest to mean the same, with what is known of it."""
        from groundplan.economics.semantic import equivalence  # noqa: PLC0415 -- numpy, only where it is used

        frame = self._frames.get(asked.frame)
        if frame is None:
            return None
        now = self._gateway.clock.now().timestamp()
        kept = (
            (entry, said)
            for key, said in frame.nearest(asked.said.vector, equivalence.MIN_COSINE)
            if (entry := self._gateway.answer_cache.get(name, key, now)) is not None
        )
        judged = [
            (entry, equivalence.judge(equivalence.load_acceptance(), asked.said, said))
            for entry, said in islice(kept, MAX_CANDIDATES)
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
        (said,) = await self._embed([(reading, reading.spans)], exchange, seconds)
        return Question(framed[0], said)

    async def _embed(
        self, asked: Sequence[tuple[Reading, Sequence[tuple[int, int]]]], exchange: Exchange, seconds: float = FOREVER
    ) -> list[EmbeddedReading]:
        """Texts with their unit vectors, and those that the words at these places have there, which may take so many
        seconds. Raises `UpstreamFailure`."""
        import numpy as np  # noqa: PLC0415 -- heavy, only where it is used

        from groundplan.economics.semantic.similarity import EmbeddedReading  # noqa: PLC0415 -- as above

        texts, places = [reading.text for reading, _ in asked], [each for _, each in asked]
        body = embed_request(texts, places=places)
        name = str(exchange.call).encode("ascii")
        answer = embed_answer(await ask_search(self._gateway, body, name, PATH, seconds=seconds), len(texts), places)
        return [
            EmbeddedReading(
                reading,
                np.frombuffer(vector, dtype="<f4").astype(np.float32),
                np.frombuffer(words, dtype=np.int8).reshape(len(own), WORD_BYTES),
            )
            for (reading, own), vector, words in zip(asked, answer.vectors, answer.words, strict=True)
        ]

    def calibration(self, name: str, rule: Semantic) -> Calibration:
        """What checks taught of a workload, with what other workers found since."""
        from groundplan.economics.semantic import equivalence, regions  # noqa: PLC0415 -- numpy, only where it is used

        known, checks = self._taught.get(name), self.checks
        if known is None or known.rule != rule:
            acceptance = equivalence.load_acceptance()
            least = acceptance.threshold(rule.bound)
            fresh = regions.Regions(rule.bound, rule.check, rule.evidence, least)
            known = self._taught[name] = Calibration(
                rule, fresh, (name, f"{acceptance.version} {rule.bound:g} {least:g}")
            )
        if checks is not None and known.version != checks.version:
            known.version = checks.version
            known.regions.load(checks.learned(known.terms))
        return known

    # after a model answered -------------------------------------------------------------------------------------------

    def record_answer(self, entry: Entry, exchange: Exchange) -> None:
        """A model's answer was kept: others may find it by its meaning; where it was a check, both are compared."""
        asked = exchange.compared_question
        if asked is None:
            return
        from groundplan.gateway.caching.semantic_frame import Frame  # noqa: PLC0415 -- numpy, only where it is used

        frame = self._frames.setdefault(asked.frame, Frame())
        self._frames.move_to_end(asked.frame)
        self._question_count += frame.add(entry.key, asked.said)
        while len(self._frames) > MAX_FRAMES or self._question_count > MAX_QUESTIONS:
            _, gone = self._frames.popitem(last=False)
            self._question_count -= len(gone.keys)
        if exchange.semantic_match is not None:
            self._gateway.run_in_background(self._compare_answers(entry, exchange, exchange.semantic_match))

    async def _compare_answers(self, entry: Entry, exchange: Exchange, match: Match) -> None:
        """Whether the fresh answer says what would have been given."""
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
    plain = (
        exchange.endpoint == ENDPOINT
        and not ask.images
        and not ask.audio_kib
        and "file" not in ask.needs
        and ask.copies == 1
    )
    return workload.cache.semantic if plain else None


class _Answer(NamedTuple):
    """What one says, and the functions that it calls with what they are given."""

    text: str
    calls: list[str]


_body = msgspec.json.Decoder(dict[str, Any]).decode


def _read_answer(exchange: Exchange, entry: Entry) -> _Answer | None:
    """None where it has neither text nor calls."""
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
