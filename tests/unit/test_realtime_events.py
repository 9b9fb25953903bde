"""Events of a conversation: what is sent in is looked at wherever an event has a place for it."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace
from tests.integration.gateway_stack import blueprint, deployment, workload

from groundplan.blueprint.model import Deployment, Guardrails, Rates
from groundplan.core.errors import Denied, Invalid
from groundplan.gateway.guard.conversation import ConversationGuard
from groundplan.gateway.guard.run import NO_GUARDRAILS, CallGuardrails
from groundplan.gateway.policy.catalog import Plan, index
from groundplan.gateway.surfaces.realtime import transcripts
from groundplan.gateway.surfaces.realtime.close import ConversationEnded
from groundplan.gateway.surfaces.realtime.events import (
    TRANSCRIPTION_PREFIX,
    check,
    error_status,
    failure_status,
    move_key_to_header,
    passed_parameters,
    read_client,
    read_server,
    requested_model,
    usage_of,
    with_capped_output,
    without_tracing,
)
from groundplan.gateway.surfaces.realtime.session import SessionSettings
from groundplan.gateway.surfaces.realtime.transcripts import Transcripts, read_transcriber
from groundplan.governance.guardrails.guard import Findings, Guard
from groundplan.governance.policy.cedar import Rule, Verdict
from groundplan.ledger.model import Usage
from groundplan.testing.clock import ManualClock

PICTURE = "data:image/png;base64,iVBORw0KGgo="
ELSEWHERE = "http://169.254.169.254/latest/meta-data"


def item(**piece: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [piece]}


def in_the_conversation(piece: dict[str, Any]) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": item(**piece)}


def for_one_response(piece: dict[str, Any]) -> dict[str, Any]:
    """As a response is made that is not of the conversation."""
    return {"type": "response.create", "response": {"conversation": "none", "input": [item(**piece)]}}


WAYS = [in_the_conversation, for_one_response]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "piece",
    [
        {"type": "input_image", "image_url": ELSEWHERE},
        {"type": "input_image"},
        {"type": "input_text", "text": "look", "image_url": ELSEWHERE},
        {"type": "image_url", "image_url": {"url": ELSEWHERE}},
    ],
)
def test_no_image_is_given_by_its_address(way: Any, piece: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        check(way(piece))
    assert refused.value.code == "image_url"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["Image_URL", "Type"])
def test_what_is_read_of_an_item_is_written_in_small_letters(way: Any, name: str) -> None:
    """To an upstream in Go, such as LocalAI, it is the address of an image."""
    event = way({"text": "x", name: ELSEWHERE})
    with pytest.raises(Invalid, match=name) as refused:
        check(read_client(msgspec.json.encode(event).decode()))
    assert refused.value.code == "duplicate_key"


@pytest.mark.parametrize("way", WAYS)
def test_an_image_that_is_sent_itself_and_a_text_go_on(way: Any) -> None:
    check(way({"type": "input_image", "image_url": PICTURE}))
    check(way({"type": "input_text", "text": "hello", "image_url": None}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "piece", [{"type": "input_audio", "audio": "AAAA"}, {"type": "input_image", "image_url": PICTURE}]
)
def test_what_no_check_can_look_at_is_named_where_the_workload_demands_it(way: Any, piece: dict[str, Any]) -> None:
    rules = Guardrails(input={"personal_data": "mask"})
    guard, event = ConversationGuard(CallGuardrails(cast(Any, None), cast(Any, None), Guard.of(rules))), way(piece)
    with pytest.raises(Denied) as refused:
        guard.check_sent(event, 100)
    assert refused.value.code == "guardrail_unchecked"


@pytest.mark.parametrize("kind", ["input_image_buffer.append", "input_audio_buffer.append_video_frame"])
def test_pictures_beside_items_are_seen_by_no_check_either(kind: str) -> None:
    guarding = CallGuardrails(cast(Any, None), cast(Any, None), Guard.of(Guardrails(input={"secrets": "block"})))
    with pytest.raises(Denied, match="image"):
        ConversationGuard(guarding).check_sent({"type": kind, "image": "AAAA"}, 100)


def test_a_key_among_the_subprotocols_is_given_once() -> None:
    def offering(*keys: str, **more: bytes) -> dict[bytes, bytes]:
        offered = ", ".join(["realtime", *(f"openai-insecure-api-key.{key}" for key in keys)])
        return {b"sec-websocket-protocol": offered.encode()} | {name.encode(): value for name, value in more.items()}

    one = offering("gp_one")
    move_key_to_header(one)
    assert one[b"authorization"] == b"Bearer gp_one"
    both = offering("gp_one", authorization=b"Bearer gp_two")
    move_key_to_header(both)
    assert both[b"authorization"] == b"Bearer gp_two", "a header counts first"
    for keys in (("gp_one", "gp_two"), ("gp_one", "gp_one")):
        with pytest.raises(Invalid) as caught:
            move_key_to_header(offering(*keys))
        assert caught.value.code == "duplicate_header" and "gp_" not in f"{caught.value.message} {caught.value.hint}"


def test_an_address_says_how_it_is_to_be_answered_as_the_guides_of_telephone_providers_do() -> None:
    target = b"/v1/realtime?model=gpt-realtime&temperature=0.8&voice=a%26model=b"
    assert (requested_model(target), passed_parameters(target)) == (
        "gpt-realtime",
        "&temperature=0.8&voice=a%26model%3Db",
    )
    assert (requested_model(b"/v1/realtime"), passed_parameters(b"/v1/realtime?model=x")) == ("auto", "")
    for other in (b"call_id=rtc_1", b"intent=transcription", b"deployment=x"):
        with pytest.raises(Invalid, match=other.decode().partition("=")[0]):
            requested_model(target + b"&" + other)


@pytest.mark.parametrize("place", ["session", "response"])
def test_no_session_searches_or_asks_elsewhere(place: str) -> None:
    """Qwen-Omni's searches are billed beside its responses."""
    for name, value in (("enable_search", True), ("search_parameters", {}), ("fallbacks", ["m"])):
        with pytest.raises(Invalid, match=name):
            check({"type": "x", place: {name: value}})
    check({"type": "x", place: {"enable_search": False, "fallbacks": [], "provider": None}})
    with pytest.raises(Invalid, match="enable_search"):
        check({"type": "x", place: {"Enable_Search": True}})


def plan_with(**more: Any) -> tuple[Plan, Deployment]:
    """One that may use a deployment that talks, and one that hears, as it is declared."""
    talker = deployment("talker", 1, kind="realtime")
    ear = replace(deployment("ear", 1, kind="transcription"), site=talker.site, upstream_model="gpt-4o-mini-transcribe")
    made = blueprint(1, [talker, replace(ear, **more)], [workload("w", ["talker"], also=["ear"])])
    return index(made).plans["w"], talker


GA, BEFORE = ("audio", "input", "transcription"), ("input_audio_transcription",)


def asking(path: tuple[str, ...], told: Any) -> dict[str, Any]:
    for name in reversed(path):
        told = {name: told}
    return {"type": "session.update", "session": told}


@pytest.mark.parametrize("path", [GA, BEFORE])
def test_a_text_of_what_is_said_is_made_by_who_is_declared_for_it(path: tuple[str, ...]) -> None:
    plan, talker = plan_with()
    for named in ("gpt-4o-mini-transcribe", "ear", "scripted/ear"):
        event, who = read_transcriber(asking(path, {"model": named, "language": "en"}), plan, talker)
        assert isinstance(who, Deployment) and who.name == "ear"
        assert event == asking(path, {"model": "gpt-4o-mini-transcribe", "language": "en"})
    for nothing in (None, False):
        assert read_transcriber(asking(path, nothing), plan, talker)[1] is False
    assert read_transcriber({"type": "session.update", "session": {"instructions": "x"}}, plan, talker)[1] is True
    for told in ({"model": "whisper-1"}, {}, {"model": None}, "ear", {"model": "talker"}):
        with pytest.raises(Invalid, match="transcription"):
            read_transcriber(asking(path, told), plan, talker)
    for models, fails in ((["ear"], False), (["scripted/talker"], True)):
        with pytest.raises(Invalid) if fails else nullcontext():
            read_transcriber(asking(path, {"model": "ear"}), plan, talker, cast(Any, SimpleNamespace(models=models)))
    with pytest.raises(Invalid, match="Transcription"):
        read_transcriber({"session": {"audio": {"input": {"Transcription": {"model": "ear"}}}}}, plan, talker)
    with pytest.raises(Invalid, match="fallbacks"):
        check(asking(path, {"model": "ear", "fallbacks": ["m"]}))


@pytest.mark.parametrize(
    "more",
    [{"url": "https://elsewhere.example/v1"}, {"site": "site-other"}, {"rates": Rates(input=0, output=0, minute=1)}],
)
def test_nobody_else_makes_a_text_of_what_is_said(more: dict[str, Any]) -> None:
    """The provider of the conversation does it itself; nor is one asked whose longest turn has no bound."""
    plan, talker = plan_with(**more)
    with pytest.raises(Invalid, match="transcription"):
        read_transcriber(asking(GA, {"model": "ear"}), plan, talker)


@pytest.mark.parametrize(
    ("sound", "most"),
    [({"type": "audio/pcm", "rate": 24000}, 480_000), ("pcm16", 480_000), ({"type": "audio/pcmu"}, 80_000)],
)
def test_a_turn_is_no_longer_than_what_is_reserved_for(sound: Any, most: int) -> None:
    """At a price for each minute, that of ten seconds."""
    told = SessionSettings()
    session: Any = {"audio": {"input": {"format": sound, "turn_detection": None}}}
    session = session if isinstance(sound, dict) else {"input_audio_format": sound, "turn_detection": None}
    told.handle(read_server(msgspec.json.encode({"type": "session.updated", "session": session})), 100)
    texts = Transcripts(cast(Any, SimpleNamespace(gateway=None)), told)
    ear = deployment("ear", 1, kind="transcription", rates=Rates(input=0, output=0, minute=1), audio_seconds=10)
    texts.set_transcriber(ear, "")
    for _ in range(10):
        texts.count_audio({"audio": "A" * (most // 10 * 4 // 3)})
    with pytest.raises(ConversationEnded, match="10 s"):
        texts.count_audio({"audio": "A" * 80})


async def test_silence_is_no_turn_however_long_it_is() -> None:
    """Where the upstream finds the turns, it says when one begins."""
    told = SessionSettings()
    turns: Any = {"turn_detection": {"type": "server_vad"}}
    told.handle(read_server(msgspec.json.encode({"type": "session.updated", "session": turns})), 100)
    texts = Transcripts(cast(Any, SimpleNamespace(gateway=None)), told)
    ear = deployment("ear", 1, kind="transcription", rates=Rates(input=0, output=0, minute=1), audio_seconds=10)
    texts.set_transcriber(ear, "")
    ten_seconds = {"audio": "A" * 640_000}
    for _ in range(3):
        texts.count_audio(ten_seconds)
    began = b'{"type":"input_audio_buffer.speech_started"}'
    assert await texts.handle(read_server(began), began) == began
    texts.count_audio(ten_seconds)
    with pytest.raises(ConversationEnded, match="10 s"):
        texts.count_audio({"audio": "A" * 80})


@pytest.mark.parametrize(("made", "taken"), [(None, True), (True, True), (False, False)])
def test_a_turn_of_which_no_text_is_made_leaves_what_is_reserved_to_the_next_one(
    made: bool | None, taken: bool
) -> None:
    told = SessionSettings()
    told.makes_transcripts = made
    texts = Transcripts(cast(Any, SimpleNamespace(gateway=None)), told)
    texts._reserved = ready = cast(Any, SimpleNamespace(attempt_started=1, started=1))
    texts._open_turn("item")
    assert (texts._open_turns, texts._reserved) == (({"item": ready}, None) if taken else ({}, ready))


def test_an_open_turn_is_not_replaced_by_another_one_of_its_name() -> None:
    texts = Transcripts(cast(Any, SimpleNamespace(gateway=None)), SessionSettings())
    first, second = (cast(Any, SimpleNamespace(attempt_started=1, started=1)) for _ in range(2))
    for each in (first, second):
        texts._reserved = each
        texts._open_turn("")
    assert (texts._open_turns, texts._reserved) == ({"": first}, second), "what is reserved would be held for ever"


@pytest.mark.parametrize("certain", [False, True])
async def test_a_turn_that_may_have_been_heard_as_its_client_left_costs_its_bound(
    monkeypatch: pytest.MonkeyPatch, certain: bool
) -> None:
    ended = list[str]()

    async def bound(*_: object) -> None:
        ended.append("bound")

    async def nothing(*_: object) -> None:
        ended.append("nothing")

    monkeypatch.setattr(transcripts, "settle_broken_off", bound)
    monkeypatch.setattr(transcripts, "settle_unused", nothing)
    texts = Transcripts(cast(Any, SimpleNamespace(gateway=None)), SessionSettings())
    texts._reserved = cast(Any, SimpleNamespace(attempt_started=1))
    await texts.finish(cast(Any, None), certain=certain)
    assert ended == ["nothing" if certain else "bound"]


def looking(why: str = "", **rules: Any) -> tuple[ConversationGuard, Findings]:
    """The guard of a conversation in which no function may be called for that reason."""
    guarding = CallGuardrails(cast(Any, None), cast(Any, None), Guard.of(Guardrails(**rules)))
    guarding.call_rule = cast(Any, SimpleNamespace(decide_now=lambda _: why))
    return ConversationGuard(guarding), guarding.findings


BLOCK: dict[str, Any] = {"output": {"secrets": "block"}}
SOUND = {"type": "response.output_audio.delta", "item_id": "i", "delta": "AAAA"}
CALLED = {"type": "response.output_item.added", "item": {"type": "function_call", "name": "delete"}}


@pytest.mark.parametrize(
    ("event", "silent", "spoken"),
    [
        ({"type": "response.create"}, False, True),
        ({"type": "response.create"}, True, False),
        ({"type": "response.create", "response": {"output_modalities": ["text"]}}, False, False),
        ({"type": "response.create", "response": {"modalities": ["text", "audio"]}}, True, True),
        ({"type": "response.create", "response": {"output_modalities": "text"}}, True, False),
        ({"type": "input_audio_buffer.commit"}, False, True),
        ({"type": "input_audio_buffer.append"}, True, False),
        ({"type": "session.update", "session": {"modalities": ["text", "audio"]}}, False, False),
    ],
)
def test_what_would_be_answered_with_sound_is_refused_where_answers_are_looked_at(
    event: dict[str, Any], silent: bool, spoken: bool
) -> None:
    guard, _ = looking(**BLOCK)
    with pytest.raises(Denied, match="output_modalities") if spoken else nullcontext():
        assert guard.check_sent(event, 9, text_only=silent) is event
    for rules in ({**BLOCK, "shadow": True}, {**BLOCK, "unchecked": ["audio"]}, {"input": {"injection": "flag"}}):
        guard, found = looking(**{"unchecked": ["audio"], **rules})
        assert guard.check_sent(event, 9, text_only=silent) is event and not found.counts
    guard, found = looking(**BLOCK, shadow=True)
    assert guard.check_sent(event, 9, text_only=silent) is event
    assert found.counts == ({("output", "unchecked", "block"): 1} if spoken else {})


@pytest.mark.parametrize(
    ("event", "why", "rules", "code"),
    [
        (SOUND, "", BLOCK, "guardrail_unchecked"),
        (SOUND, "", {**BLOCK, "unchecked": ["audio"]}, ""),
        (SOUND, "", {"input": {"secrets": "block"}}, ""),
        (CALLED, "tools", BLOCK, "guardrail_tools"),
        (CALLED, "stopped", {}, "guardrail_tools"),
        (CALLED, "tools", {**BLOCK, "shadow": True}, ""),
        (CALLED, "", BLOCK, ""),
    ],
)
def test_sound_and_calls_of_functions_that_are_not_allowed_reach_nobody(
    event: dict[str, Any], why: str, rules: dict[str, Any], code: str
) -> None:
    guard, found = looking(why, **rules)
    data = msgspec.json.encode(event)
    with pytest.raises(Denied) if code else nullcontext() as refused:
        assert guard.check_answered(data) == [data]
    if refused is not None:
        assert refused.value.code == code
    assert ("output", "tools", "block") in found.counts if why else not (found.counts and not code)


def test_whether_a_function_may_be_called_is_decided_anew_for_each_call_of_a_conversation() -> None:
    """A rule about hours ends while it goes on; of a single answer it is decided once."""
    clock, hours = ManualClock(), Rule("0", "day", "forbid", "", "", "day", None, {})

    def tool(_policy: Any, _whose: Any, _tool: Any, now: float) -> Verdict:
        return Verdict(allowed=now < ends, rules=(hours,))

    ends = clock.seconds() + 60
    gateway = SimpleNamespace(live=SimpleNamespace(policy=SimpleNamespace(kills=set())), clock=clock)
    exchange = SimpleNamespace(
        catalog=SimpleNamespace(gate=SimpleNamespace(decide_tool=tool)),
        key="k",
        workload=SimpleNamespace(name="w"),
        person="",
    )
    guarding = CallGuardrails(cast(Any, gateway), cast(Any, exchange), NO_GUARDRAILS)
    guard, data = ConversationGuard(guarding), msgspec.json.encode(CALLED)
    assert guard.check_answered(data) == [data] and not guarding.call_rule("delete")
    clock.advance(61)
    with pytest.raises(Denied) as refused:
        guard.check_answered(data)
    assert refused.value.code == "guardrail_tools" and not guarding.call_rule("delete")


def test_a_text_of_what_is_said_is_looked_at_whole_beside_the_response() -> None:
    """A part of it is kept back until its own end, not that of what is answered meanwhile."""
    rules = Guard.of(Guardrails(output={"secrets": "block"}))
    guarding = CallGuardrails(cast(Any, None), cast(Any, None), rules)
    guard, secret = ConversationGuard(guarding), "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx"

    def told(kind: str, **more: Any) -> str:
        return b"".join(guard.check_answered(msgspec.json.encode({"type": kind, "item_id": "mine", **more}))).decode()

    assert secret[:9] not in told(f"{TRANSCRIPTION_PREFIX}delta", delta=f"it is {secret[:20]}")
    assert secret[:9] not in told("response.output_audio.done", item_id="other")
    assert secret[:9] not in told("response.done", item_id="other")
    with pytest.raises(Denied):
        told(f"{TRANSCRIPTION_PREFIX}delta", delta=f"{secret[20:]} " + "and more " * 60)
    assert "hello" not in told(f"{TRANSCRIPTION_PREFIX}delta", item_id="short", delta="hello")
    again = [{"token": "hello", "logprob": -0.1}]
    assert (
        told(f"{TRANSCRIPTION_PREFIX}completed", item_id="short", transcript="hello", logprobs=again).count("hello")
        == 2
    )


def test_what_a_response_is_made_of_has_one_spelling() -> None:
    with pytest.raises(Invalid) as refused:
        check({"type": "response.create", "response": {"Input": [item(type="input_image", image_url=ELSEWHERE)]}})
    assert refused.value.code == "duplicate_key"


@pytest.mark.parametrize("place", ["session", "response"])
@pytest.mark.parametrize(
    ("told", "left"), [(50, 50), (5000, 100), ("inf", None), (None, None), (True, None), (99.5, None)]
)
def test_no_answer_is_asked_for_that_is_longer_than_what_is_reserved(place: str, told: object, left: object) -> None:
    """What is no number leaves the cap that the session has."""
    for name in ("max_output_tokens", "max_response_output_tokens"):
        event = {"type": "x", place: {name: told, "voice": "ash"}}
        made = with_capped_output(event, 100)[place]
        assert made == {"voice": "ash"} | ({} if left is None else {name: left})
    assert with_capped_output(same := {"type": "x", place: {"voice": "ash"}}, 100) is same


def test_nothing_is_kept_in_traces_at_a_provider() -> None:
    event = {"type": "session.update", "session": {"type": "realtime", "tracing": "auto"}}
    assert without_tracing(event)["session"] == {"type": "realtime"}
    assert without_tracing(same := {"type": "session.update", "session": {"tracing": None}}) is same


SPOKEN: dict[str, Any] = {"audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": True}}}}


@pytest.mark.parametrize(
    ("session", "name", "waits"),
    [
        ({"type": "realtime", "max_output_tokens": "inf", **SPOKEN}, "max_output_tokens", False),
        ({"max_response_output_tokens": 4096, "turn_detection": None}, "max_response_output_tokens", True),
        ({"max_output_tokens": 100, "audio": {"input": {"turn_detection": None}}}, "", True),
        ({"turn_detection": {"type": "semantic_vad", "create_response": False}}, "", True),
        ({"model": "grok"}, "", False),
    ],
)
def test_an_upstream_is_asked_for_the_cap_by_the_name_that_it_has(session: Any, name: str, waits: bool) -> None:
    """APIs refuse each other's names. Its answer is no matter of the client's, whichever it is."""
    told = SessionSettings()
    asked = told.handle(read_server(msgspec.json.encode({"type": "session.created", "session": session})), 100)
    assert told.responds_on_request == waits
    kept = session | ({name: 100} if name else {})
    updated = msgspec.json.encode({"type": "session.updated", "session": kept})
    assert told.handle(read_server(updated), 100) == ""
    assert told.is_cap_reply(read_server(updated), updated) == bool(name)
    assert not told.is_cap_reply(read_server(updated), updated), "the next one is the client's"
    if name:
        sent = msgspec.json.decode(asked)
        assert sent["session"] == {key: session[key] for key in ("type",) if key in session} | {name: 100}
        told.handle(read_server(msgspec.json.encode({"type": "session.created", "session": session})), 100)
        refused = msgspec.json.encode({"type": "error", "error": {"event_id": sent["event_id"], "message": "x"}})
        assert told.is_cap_reply(read_server(refused), refused)


@pytest.mark.parametrize("refused", [False, True])
def test_a_cap_that_is_told_only_once_something_was_changed_is_asked_for_then(refused: bool) -> None:
    """As by Qwen-Omni, whose errors do not say what they refuse: what is the client's is not taken for its answer."""
    told = SessionSettings()
    heard = [{"type": "session.created", "session": {}}, {"type": "session.updated", "session": {"max_tokens": 16384}}]
    asked = [told.handle(read_server(msgspec.json.encode(each)), 100) for each in heard]
    assert (asked[0], msgspec.json.decode(asked[1])["session"]) == ("", {"max_tokens": 100})
    then = {"type": "session.updated", "session": {"max_tokens": 16384 if refused else 100}}
    data = msgspec.json.encode(then)
    assert told.handle(read_server(data), 100) == ""
    assert told.is_cap_reply(read_server(data), data) != refused
    assert with_capped_output({"session": {"max_tokens": 16384}}, 100) == {"session": {"max_tokens": 100}}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (
            {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key provided: sk"},
            401,
        ),
        ({"type": "invalid_request_error", "code": "model_not_found"}, 404),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, 402),
        ({"type": "invalid_request_error", "code": "beta_api_shape_disabled"}, 0),
        ({"type": "requests", "code": "rate_limit_exceeded"}, 429),
        ({"type": "server_error", "code": None}, 503),
        ("not an object", 503),
    ],
)
def test_whose_matter_an_error_is(error: Any, status: int) -> None:
    event = read_server(msgspec.json.encode({"type": "error", "error": error}))
    assert error_status(event.error) == status
    details = {"type": "failed", "error": error}
    done = {"type": "response.done", "response": {"status": "failed", "status_details": details}}
    assert failure_status(read_server(msgspec.json.encode(done))) == status


@pytest.mark.parametrize("details", [None, "completed", {"type": "cancelled", "reason": "turn_detected"}])
def test_a_response_that_did_not_fail(details: Any) -> None:
    done = {"type": "response.done", "response": {"status": "completed", "status_details": details}}
    assert failure_status(read_server(msgspec.json.encode(done))) is None


def test_what_vllm_transcribes_is_counted() -> None:
    told = {"type": "transcription.done", "text": "hello", "usage": {"prompt_tokens": 40, "completion_tokens": 7}}
    event = read_server(msgspec.json.encode(told))
    assert event.concerns_response and usage_of(event) == Usage(input=40, output=7)
