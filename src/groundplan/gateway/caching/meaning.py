"""Answers to questions that mean the same, for workloads that declare a bound on wrong ones; asked after an exact miss.

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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import Semantic
from groundplan.gateway.caching.answer_cache import Entry, Key
from groundplan.gateway.caching.cache_key import frame_digest
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.ground import ask_search
from groundplan.gateway.call.resume import ENDPOINT
from groundplan.gateway.upstream.http1 import UpstreamFailure
from groundplan.knowledge.embedding.wire import PATH, embed_answer, embed_request

if TYPE_CHECKING:
    from groundplan.economics.semantic.likeness import Vector
    from groundplan.economics.semantic.reading import Reading
    from groundplan.economics.semantic.regions import Region, Regions
    from groundplan.gateway.caching.meaning_checks import Checks, Terms
    from groundplan.gateway.caching.meaning_tally import Tally
    from groundplan.gateway.call.context import Gateway


QUESTION = 2000
"""Characters of the longest question that is compared."""
KNOWN = 500
"""Questions of a frame; the oldest go first."""
FRAMES = 2000
WORDS = 20_000
"""Words whose vectors are kept; those that were asked about longest ago go first."""
EMBEDDED = 512
"""Texts that the search service embeds at once."""
BEST = 3
"""Of the likest questions, how many are judged."""
AGREES = 0.8
"""Likeness of two answers that say the same."""
FEW = 2
"""Words by which two answers may differ alone, so that these decide whether they say the same."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The question of one call, read for comparing; kept with it until its answer is there."""

    frame: bytes
    vector: Vector
    reading: Reading


@dataclass(frozen=True, slots=True)
class Match:
    """An answer that was found and is checked against the one that comes now."""

    entry: Entry
    taught: Taught
    region: Region
    score: float


@dataclass(slots=True, eq=False)
class Taught:
    """What a workload's checks taught, under the rule that it declares now."""

    rule: Semantic
    regions: Regions
    terms: Terms
    edition: int = -1
    """Of what was read of other workers."""


@dataclass(slots=True)
class Counts:
    """Of one workload in this worker."""

    looked: int = 0
    given: int = 0
    checked: int = 0
    wrong: int = 0


@dataclass(slots=True)
class _Frame:
    keys: list[Key] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


class Meanings:
    """Of one worker."""

    def __init__(self, gateway: Gateway, dice: Callable[[], float] = random.random) -> None:
        self._gateway = gateway
        self._dice = dice
        self._frames: OrderedDict[bytes, _Frame] = OrderedDict()
        self._taught: dict[str, Taught] = {}
        self._words: OrderedDict[str, Vector] = OrderedDict()
        self.counts: dict[str, Counts] = {}
        self.tally: Tally | None = None
        """Where the counts are kept beyond this worker."""
        self.checks: Checks | None = None
        """Where what checks taught is kept beyond this worker."""

    # looking up ------------------------------------------------------------------------------------------------------

    async def __call__(self, exchange: Exchange, entries: Iterator[Entry]) -> Entry | None:  # noqa: ARG002
        """The answer to a question that means the same; None: a model is asked. Notes at the call what it asked, and
        what its answer is to be compared with."""
        rule = _rule(exchange)
        if rule is None or exchange.asked is not None:
            return None
        began, found = time.perf_counter_ns(), None
        try:
            asked = exchange.asked = await self._read(exchange)
            if asked is None:
                return None
            found = await self._match(exchange, rule, asked)
        except (UpstreamFailure, msgspec.DecodeError, UnicodeDecodeError):
            self._gateway.targets.forget("search")
        if self.tally is not None and exchange.workload is not None:
            self.tally.looked(exchange.workload.name, (time.perf_counter_ns() - began) // 1000)
        return found

    async def _match(self, exchange: Exchange, rule: Semantic, asked: Asked) -> Entry | None:
        name = exchange.workload.name if exchange.workload is not None else ""
        counts = self.counts.setdefault(name, Counts())
        counts.looked += 1
        found = await self._nearest(exchange, name, asked)
        if found is None:
            return None
        entry, score = found
        taught = self.taught(name, rule)
        region = taught.regions.of(asked.vector)
        decided = taught.regions.decide(region, score, self._dice())
        if decided == "check":
            exchange.match = Match(entry, taught, region, score)
        return entry if decided == "give" else None

    def given(self, entry: Entry) -> None:
        """What was found was given: permissions, limits and form could still refuse it before."""
        counts = self.counts.setdefault(entry.workload, Counts())
        counts.given += 1
        if self.tally is not None:
            self.tally.given(entry.workload, entry.cost)

    async def _nearest(self, exchange: Exchange, name: str, asked: Asked) -> tuple[Entry, float] | None:
        """The kept answer whose question is surest to mean the same, with its score."""
        from groundplan.economics.semantic import accept  # noqa: PLC0415 -- numpy, only where it is used

        frame = self._frames.get(asked.frame)
        if frame is None:
            return None
        now = self._gateway.clock.now().timestamp()
        likeness = [float(other.vector @ asked.vector) for other in frame.asked]
        order = sorted(range(len(likeness)), key=lambda place: -likeness[place])[:BEST]
        # other calls change the frame while words are embedded: all that is used of it is taken before
        alive: list[tuple[Entry, Reading, float]] = []
        for place in order:
            kept = self._gateway.cached.get(name, frame.keys[place], now)
            if kept is not None and likeness[place] > accept.LEAST_COSINE:
                alive.append((kept, frame.asked[place].reading, likeness[place]))
        if not alive:
            return None
        words = await self._vectors([asked.reading, *(reading for _, reading, _ in alive)], exchange)
        if not _known(asked.reading, words):
            return None
        judged = [
            (kept, accept.judge(accept.shipped(), asked.reading, reading, cosine, words.__getitem__))
            for kept, reading, cosine in alive
            if _known(reading, words)
        ]
        if not judged:
            return None
        entry, verdict = max(judged, key=lambda each: each[1].score)
        return None if verdict.veto else (entry, verdict.score)

    async def _read(self, exchange: Exchange) -> Asked | None:
        from groundplan.economics.semantic.reading import read  # noqa: PLC0415 -- numpy, only where it is used

        plan, policy, recast = exchange.plan, exchange.policy, exchange.interface.recast
        if plan is None or policy is None or recast is None:
            return None
        framed = frame_digest(exchange, recast.irrelevant, self._gateway.cached.terms(plan), policy)
        if framed is None or not 0 < len(framed[1]) <= QUESTION:
            return None
        (vector,) = await self._embed([framed[1]], exchange)
        return Asked(framed[0], vector, read(framed[1]))

    async def _embed(self, texts: Sequence[str], exchange: Exchange) -> list[Vector]:
        """Unit vectors from the local search service. Raises `UpstreamFailure`."""
        import numpy as np  # noqa: PLC0415 -- heavy, only where it is used

        body = await ask_search(self._gateway, embed_request(texts), str(exchange.call).encode("ascii"), PATH)
        answer = embed_answer(body, len(texts))
        return [np.frombuffer(vector, dtype="<f4").astype(np.float32) for vector in answer.vectors]

    async def _vectors(self, readings: Sequence[Reading], exchange: Exchange) -> dict[str, Vector]:
        """Vectors of their content words. Of more new words than are embedded at once the last are left out: a
        question with one of them is a miss."""
        from groundplan.economics.semantic.likeness import content  # noqa: PLC0415 -- numpy, only where it is used

        found: dict[str, Vector] = {}
        new: list[str] = []
        for word in dict.fromkeys(word for each in readings for word in content(each)):
            vector = self._words.get(word)
            if vector is not None:
                self._words.move_to_end(word)
                found[word] = vector
            elif len(new) < EMBEDDED:
                new.append(word)
        if new:
            for word, vector in zip(new, await self._embed(new, exchange), strict=True):
                self._words[word] = found[word] = vector
                self._words.move_to_end(word)
        while len(self._words) > WORDS:
            self._words.popitem(last=False)
        return found

    def taught(self, name: str, rule: Semantic) -> Taught:
        """What checks taught of a workload, with what other workers found since."""
        from groundplan.economics.semantic import accept, regions  # noqa: PLC0415 -- numpy, only where it is used

        known, checks = self._taught.get(name), self.checks
        if known is None or known.rule != rule:
            acceptance = accept.shipped()
            least = acceptance.threshold(rule.bound)
            fresh = regions.Regions(rule.bound, rule.check, rule.evidence, least)
            known = self._taught[name] = Taught(rule, fresh, (name, f"{acceptance.version} {rule.bound:g} {least:g}"))
        if checks is not None and known.edition != checks.edition:
            known.edition = checks.edition
            known.regions.load(checks.known(known.terms))
        return known

    # after a model answered ------------------------------------------------------------------------------------------

    def note(self, entry: Entry, exchange: Exchange) -> None:
        """A model's answer was kept: others may find it by its meaning; where it was a check, both are compared."""
        asked = exchange.asked
        if asked is None:
            return
        frame = self._frames.setdefault(asked.frame, _Frame())
        self._frames.move_to_end(asked.frame)
        frame.keys.append(entry.key)
        frame.asked.append(asked)
        if len(frame.keys) > KNOWN:
            del frame.keys[0], frame.asked[0]
        if len(self._frames) > FRAMES:
            self._frames.popitem(last=False)
        if exchange.match is not None:
            self._gateway.keep(self._compare(entry, exchange, exchange.match))

    async def _compare(self, entry: Entry, exchange: Exchange, match: Match) -> None:
        """Whether the fresh answer says what would have been given."""
        one, other = _said(exchange, entry), _said(exchange, match.entry)
        if one is None or other is None:
            return
        try:
            same = one.split() == other.split() or await self._agree(one, other, exchange)
        except (UpstreamFailure, msgspec.DecodeError):
            return
        counts = self.counts.setdefault(entry.workload, Counts())
        counts.checked += 1
        counts.wrong += not same
        if self.tally is not None:
            self.tally.checked(entry.workload, wrong=not same)
        # the kept answer stays: it is right for its own question
        taught, region = match.taught, match.region
        taught.regions.learn(region, match.score, same)
        if self.checks is not None:
            self.checks.add(taught.terms, region.first, wrong=not same, raised=region.raised)

    async def _agree(self, one: str, other: str, exchange: Exchange) -> bool:
        from groundplan.economics.semantic import substitution  # noqa: PLC0415 -- numpy, only where it is used
        from groundplan.economics.semantic.guards import contradicts  # noqa: PLC0415 -- as above
        from groundplan.economics.semantic.likeness import SYNONYM  # noqa: PLC0415 -- as above
        from groundplan.economics.semantic.reading import read  # noqa: PLC0415 -- numpy, only where it is used

        a, b = read(one), read(other)
        if contradicts(a, b):
            return False
        first, second = await self._embed([one, other], exchange)
        if float(first @ second) < AGREES:
            return False
        left, right = substitution.left_over(a, b), substitution.left_over(b, a)
        if not 0 < len(left) == len(right) <= FEW:
            return True
        words = [*left, *right]
        vectors = dict(zip(words, await self._embed(words, exchange), strict=True))
        return substitution.least_counterpart(left, right, vectors.__getitem__) >= SYNONYM


def _rule(exchange: Exchange) -> Semantic | None:
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


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct):
    choices: list[_Choice]


def _known(reading: Reading, words: dict[str, Vector]) -> bool:
    from groundplan.economics.semantic.likeness import content  # noqa: PLC0415 -- numpy, only where it is used

    return all(word in words for word in content(reading))


_answer = msgspec.json.Decoder(_Answer).decode


def _said(exchange: Exchange, entry: Entry) -> str | None:
    """The text of an answer; None where it has none."""
    recast: Any = exchange.interface.recast
    data = entry.whole if entry.whole is not None else recast.whole(entry.events or ())
    try:
        choices = _answer(data or b"").choices
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return choices[0].message.content if choices else None
