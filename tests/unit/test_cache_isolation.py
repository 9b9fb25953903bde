"""Isolation of cached answers: cache keys against a simple model of equality, the cache against a simple model of its
contents, and the forms of an answer against each other."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.integration.gateway_stack import blueprint, deployment, workload

from groundplan.blueprint.model import Cache
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.caching.answer_cache import MAX_SHARE, AnswerCache
from groundplan.gateway.caching.cache_key import request_digest, terms_of
from groundplan.gateway.caching.entry import OVERHEAD_BYTES, Entry
from groundplan.gateway.caching.replay_forms import CHAT_REPLAY_FORMS
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.policy.catalog import Plan, index
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.surfaces.chat.surface import CHAT, read

# keys ----------------------------------------------------------------------------------------------------------------

PEOPLE = ("", "ana", "ben", "cy")
GROUPS = ("g1", "g2")
WORDS = ("leave", "pay")


class RequestBody:
    """What `request_digest` reads of a request."""

    def __init__(self, body: bytes) -> None:
        self.body = body


@dataclass(frozen=True)
class CallSpec:
    person: str
    key: str
    workload: str
    scope: str
    words: str
    temperature: float | None
    cap: int | None
    cleared: int
    groups: tuple[tuple[str, str], ...]
    """Person -> digest of all their groups, for people whose groups have been loaded."""
    spelling: int
    """Bit flags: how the same request is spelled (extra fields, order, indentation, escapes)."""

    def body(self) -> bytes:
        fields: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": self.words}]}
        if self.temperature is not None:
            fields["temperature"] = self.temperature
        if self.cap is not None:
            fields["max_completion_tokens" if self.spelling & 8 else "max_tokens"] = self.cap
        if self.spelling & 1:
            fields |= {"user": "somebody", "stream": bool(self.spelling & 2), "metadata": {"a": "b"}}
        if self.spelling & 2:
            fields = dict(reversed(list(fields.items())))
            fields["messages"] = [dict(reversed(list(message.items()))) for message in fields["messages"]]
        text = json.dumps(fields, indent=2 if self.spelling & 4 else None)
        return text.replace('"leave"', '"\\u006ceave"').encode() if self.spelling & 8 else text.encode()

    def sharing_scope(self) -> tuple[str, str]:
        """Who may share the answer with this caller, by docs/cache.md."""
        if self.scope == "workload":
            return ("everybody", "")
        of_groups = dict(self.groups)
        if self.scope == "group" and self.person in of_groups:
            return ("groups", of_groups[self.person])
        return ("person", self.person) if self.person else ("key", self.key)

    def identity(self) -> tuple[object, ...]:
        cap = min(20, 1024 if self.cap is None else self.cap)
        return (self.workload, self.scope, self.sharing_scope(), self.words, self.temperature, cap, self.cleared)

    def digest(self) -> bytes | None:
        declared = workload(
            self.workload, ["one"], max_output_tokens=20, cache=Cache(seconds=9, max_bytes=1 << 20, scope=self.scope)
        )
        body, request = self.body(), RequestBody(self.body())
        exchange = Exchange(new_id_bytes(), request, None, CHAT)  # type: ignore[arg-type]  # no client waits for it
        exchange.ask, exchange.workload, exchange.person = read(body), declared, self.person
        exchange.key = KeyEntry(self.key, self.workload, self.person, False, False, None)
        plan = index(blueprint(1, [deployment("one", 1)], [declared])).plans[self.workload]
        policy = Policy(
            1, {}, {}, frozenset(PEOPLE), frozenset(), {self.workload: self.cleared}, groups=dict(self.groups)
        )
        return request_digest(exchange, CHAT_REPLAY_FORMS.ignored_fields, terms_of(plan), policy)


asked = st.builds(
    CallSpec,
    person=st.sampled_from(PEOPLE),
    key=st.sampled_from(("k1", "k2")),
    workload=st.sampled_from(("w1", "w2")),
    scope=st.sampled_from(("person", "group", "workload")),
    words=st.sampled_from(WORDS),
    temperature=st.sampled_from((None, 0, 1, 0.5)),
    cap=st.sampled_from((None, 10, 20, 30)),
    cleared=st.integers(0, 1),
    groups=st.dictionaries(st.sampled_from(PEOPLE[1:]), st.sampled_from(GROUPS)).map(
        lambda d: tuple(sorted(d.items()))
    ),
    spelling=st.integers(0, 15),
)


@settings(max_examples=400, deadline=None)
@given(
    one=asked,
    other=asked,
    alike=st.sets(st.sampled_from([f for f in CallSpec.__dataclass_fields__ if f != "spelling"])),
)
def test_two_calls_share_a_key_exactly_if_all_relevant_fields_are_equal(
    one: CallSpec, other: CallSpec, alike: set[str]
) -> None:
    other = replace(other, **{name: getattr(one, name) for name in alike})
    assert (one.digest() == other.digest()) == (one.identity() == other.identity())


@settings(deadline=None)
@given(one=asked, other=asked)
def test_people_and_groups_never_share_unless_the_scope_is_workload(one: CallSpec, other: CallSpec) -> None:
    other = replace(one, person=other.person, key=other.key, spelling=other.spelling)
    if one.scope == "workload" or one.sharing_scope() == other.sharing_scope():
        return
    assert one.digest() != other.digest()


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(extra=st.dictionaries(st.text(min_size=1), values, max_size=3), more=values, name=st.text(min_size=1))
def test_any_other_field_changes_the_key(extra: dict[str, Any], more: Any, name: str) -> None:
    known = {"model", "messages", *CHAT_REPLAY_FORMS.ignored_fields}
    fields = {key: value for key, value in extra.items() if key not in known}
    if name in known or (name in fields and fields[name] == more):
        return

    def of(fields: dict[str, Any], end: bytes = b"}") -> bytes | None:
        body = json.dumps({"model": "auto", "messages": [], **fields}).encode("utf-8", "surrogatepass")[:-1] + end
        exchange = Exchange(new_id_bytes(), RequestBody(body), None, CHAT)  # type: ignore[arg-type]
        declared = workload("w", ["one"], cache=Cache(seconds=9, max_bytes=1 << 20, scope="workload"))
        exchange.ask = read(b'{"model": "auto", "messages": [{"role": "user", "content": "x"}]}')
        exchange.workload = declared
        policy = Policy(1, {}, {}, frozenset(), frozenset())
        return request_digest(exchange, CHAT_REPLAY_FORMS.ignored_fields, b"", policy)

    first = of(fields)
    assert first is None or first != of({**fields, name: more})
    assert of(fields, b', "": 1e999}') is None, "what is not read here cannot be compared"


# the shelf -----------------------------------------------------------------------------------------------------------

SCOPES = ("company", "workload/w1", "workload/w2", "deployment/one", "source/a", "key/k")
LIMIT = 30_000
TOTAL = 45_000
"""Of both workloads."""


def plans(prompt: str) -> dict[str, Plan]:
    rule = Cache(seconds=9, max_bytes=LIMIT, scope="workload")
    declared = [workload(name, ["one"], cache=rule, system_prompt=prompt) for name in ("w1", "w2")]
    return index(blueprint(1, [deployment("one", 1)], declared)).plans


class CacheMachine(RuleBasedStateMachine):
    """Against a dict of what may be given. The bound is checked, which one it evicts is not."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = AnswerCache(TOTAL)
        self.prompt = "a"
        self.catalog = index(blueprint(1, [], []))
        self.now = 1000.0
        self.policy = Policy(1, {}, {}, frozenset({"ana", "ben"}), frozenset())
        self.good: dict[tuple[str, bytes], Entry] = {}
        self.renew()

    def renew(self) -> None:
        self.catalog = replace(self.catalog, number=self.catalog.number + 1, plans=plans(self.prompt))
        self.heed()

    def heed(self) -> None:
        self.cache.apply_policies(self.catalog, self.policy)

    @rule(
        name=st.sampled_from(("w1", "w2")), digest=st.binary(min_size=1, max_size=1), size=st.integers(0, LIMIT // 6),
        person=st.sampled_from(("", "ana", "ben")), more=st.sets(st.sampled_from(SCOPES[3:])),
        seconds=st.integers(1, 9),
    )  # fmt: skip
    def put(self, name: str, digest: bytes, size: int, person: str, more: set[str], seconds: int) -> None:
        subjects = frozenset({"company", f"workload/{name}", *more})
        if not self.policy.kills.isdisjoint(subjects):
            return
        entry = Entry(
            (digest, False), b"c", name, self.now, self.now + seconds, "one", subjects, person, (), 1, whole=bytes(size)
        )
        kept = self.cache.put(self.catalog.plans[name], entry)
        assert kept == (entry.size * MAX_SHARE <= LIMIT)
        if kept:
            self.good[name, digest] = entry

    @rule(name=st.sampled_from(("w1", "w2")), prompt=st.sampled_from(("a", "b")))
    def put_late(self, name: str, prompt: str) -> None:
        """By a call that began under another blueprint."""
        entry = Entry((b"late", False), b"c", name, self.now, self.now + 9, "one", frozenset(), "", (), 1, whole=b"")
        assert self.cache.put(plans(prompt)[name], entry) == (prompt == self.prompt)
        if prompt == self.prompt:
            self.good[name, b"late"] = entry

    @rule(name=st.sampled_from(("w1", "w2")), digest=st.binary(min_size=1, max_size=1))
    def get(self, name: str, digest: bytes) -> None:
        self.heed()
        found, may = self.cache.get(name, (digest, False), self.now), self.good.get((name, digest))
        assert found is None or (found is may and found.until > self.now)

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(scope=st.sampled_from(SCOPES), back=st.booleans())
    def stop(self, scope: str, back: bool) -> None:
        """Stopped, and perhaps let run again."""
        before = self.policy
        self.policy = replace(before, kills=before.kills | {scope})
        self.cache.apply_policy(self.policy)
        self.good = {key: entry for key, entry in self.good.items() if scope not in entry.subjects}
        if back:
            self.policy = replace(before, kills=before.kills - {scope})
            self.cache.apply_policy(self.policy)

    @rule(person=st.sampled_from(("ana", "ben")), back=st.booleans())
    def leave(self, person: str, back: bool) -> None:
        if person not in self.policy.active:
            return
        before = self.policy
        self.policy = replace(before, active=before.active - {person})
        self.cache.apply_policy(self.policy)
        self.good = {key: entry for key, entry in self.good.items() if entry.person != person}
        self.policy = before if back else replace(before, active=before.active)
        self.cache.apply_policy(self.policy)

    @rule(name=st.sampled_from(("w1", "w2")))
    def clear(self, name: str) -> None:
        self.policy = replace(self.policy, cleared={**self.policy.cleared, name: self.policy.cleared.get(name, 0) + 1})
        self.cache.apply_policy(self.policy)
        self.good = {key: entry for key, entry in self.good.items() if key[0] != name}

    @rule(prompt=st.sampled_from(("a", "b")))
    def apply(self, prompt: str) -> None:
        if prompt != self.prompt:
            self.good.clear()
        self.prompt = prompt
        self.renew()

    @precondition(lambda self: self.good)
    @rule(place=st.integers(0, 5))
    def drop(self, place: int) -> None:
        key = sorted(self.good)[place % len(self.good)]
        self.cache.drop(self.good.pop(key))

    @invariant()
    def is_bounded_and_counted(self) -> None:
        found = [entry for name in ("w1", "w2") for entry in self.cache.entries(name)]
        assert self.cache.size == sum(entry.size for entry in found) and len(self.cache) == len(found)
        for name in ("w1", "w2"):
            assert sum(entry.size for entry in self.cache.entries(name)) <= LIMIT
        assert self.cache.size <= TOTAL
        assert all(entry is self.good.get((entry.workload, entry.key[0])) for entry in found)


TestShelf = CacheMachine.TestCase
TestShelf.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def make_entry(number: int, name: str, size: int) -> Entry:
    """Of so many bytes in all."""
    whole = bytes(size - 64 - OVERHEAD_BYTES)
    return Entry((bytes([number]), False), b"c", name, 0, 9, "one", frozenset(), "", (), 1, whole=whole)


def test_the_least_recently_used_answer_of_all_workloads_is_evicted_first() -> None:
    cache, known = AnswerCache(8 * 3000), plans("a")
    made = [make_entry(number, f"w{number % 2 + 1}", 3000) for number in range(10)]
    for entry in made[:8]:
        assert cache.put(known[entry.workload], entry)
    assert (cache.size, len(cache)) == (24_000, 8)
    assert cache.get("w1", made[0].key, 1) is made[0]  # the first one is asked for, so the next ones go
    for entry in made[8:]:
        assert cache.put(known[entry.workload], entry)
    there = [entry for entry in made if cache.get(entry.workload, entry.key, 1) is entry]
    assert there == [made[0], *made[3:]] and cache.size == 24_000
    assert not cache.put(known["w1"], make_entry(99, "w1", 3001)), "one takes an eighth of all at most"
    newer = make_entry(0, "w1", 2000)
    assert cache.put(known["w1"], newer)
    cache.drop(made[0])  # whoever found it before waited until it was looked at
    assert cache.get("w1", newer.key, 1) is newer and cache.size == 23_000
    cache.drop(newer)
    assert cache.get("w1", newer.key, 1) is None
    cache.apply_policies(index(blueprint(1, [], [])), Policy(1, {}, {}, frozenset(), frozenset()))
    assert (cache.size, len(cache)) == (0, 0)


# forms ---------------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=20)


def tool_call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


calls = st.lists(st.builds(tool_call, texts, texts, texts), max_size=2)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = []
    for place in range(draw(st.integers(1, 3))):
        message: dict[str, Any] = {"role": "assistant", "content": draw(texts.filter(bool) | st.none())}
        if draw(st.booleans()) and (made := draw(calls)):
            message["tool_calls"] = made
        choice = {"index": place, "message": message, "finish_reason": draw(st.sampled_from(["stop", "tool_calls"]))}
        if draw(st.booleans()):
            choice["logprobs"] = {"content": [{"token": draw(texts), "logprob": -0.5}]}
        choices.append(choice)
    usage = {"prompt_tokens": 3, "completion_tokens": draw(st.integers(0, 9)), "total_tokens": 12}
    return {"id": "c", "created": 1, "model": "m", "object": "chat.completion", "choices": choices, "usage": usage}


@given(answer=answers())
def test_an_answer_converted_to_a_stream_and_back_is_equal(answer: dict[str, Any]) -> None:
    events = CHAT_REPLAY_FORMS.to_events(msgspec.json.encode(answer))
    assert events is not None and events[-1] == b"[DONE]"
    back = CHAT_REPLAY_FORMS.to_whole(events)
    assert back is not None
    for choice in answer["choices"]:
        for call in choice["message"].get("tool_calls", []):
            call["id"] = call["id"] or None
    assert json.loads(back) == answer
    assert CHAT_REPLAY_FORMS.is_complete_stream(events, len(answer["choices"])) and CHAT_REPLAY_FORMS.is_complete(
        back, len(answer["choices"])
    )
    assert not CHAT_REPLAY_FORMS.is_complete_stream(events, len(answer["choices"]) + 1)


@given(answer=answers(), field=st.sampled_from(["top", "choice", "message"]), value=values)
def test_unknown_fields_are_never_lost(answer: dict[str, Any], field: str, value: Any) -> None:
    choice = answer["choices"][0]
    place = {"top": answer, "choice": choice, "message": choice["message"]}[field]
    place["new_field"] = value
    events = CHAT_REPLAY_FORMS.to_events(msgspec.json.encode(answer))
    assert (events is None) == (value not in (None, [], {}))


@given(parts=st.lists(texts, min_size=1, max_size=6), odd=st.binary(max_size=30))
def test_pieces_of_a_stream_are_joined_and_rubbish_is_refused(parts: list[str], odd: bytes) -> None:
    chunks = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]} for part in parts
    ]
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
    events = [*map(msgspec.json.encode, [*chunks, end]), b"[DONE]"]
    whole = CHAT_REPLAY_FORMS.to_whole(events)
    assert whole is not None
    assert json.loads(whole)["choices"][0]["message"]["content"] == "".join(parts)
    assert CHAT_REPLAY_FORMS.to_whole([odd]) is None and CHAT_REPLAY_FORMS.to_events(odd) is None
    assert not CHAT_REPLAY_FORMS.is_complete(odd, 1) and not CHAT_REPLAY_FORMS.is_complete_stream([odd], 1)
