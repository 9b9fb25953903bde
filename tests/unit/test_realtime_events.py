"""Events of a conversation: what is sent in is looked at wherever an event has a place for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from groundplan.blueprint.model import Guardrails
from groundplan.core.errors import Denied, Invalid
from groundplan.gateway.guard.conversation import ConversationGuard
from groundplan.gateway.surfaces.realtime_events import (
    bounded,
    check,
    failure_of,
    meant,
    read_server,
    untraced,
    usage_of,
)
from groundplan.gateway.surfaces.realtime_session import Told
from groundplan.governance.guardrails.guard import Findings, Guard
from groundplan.governance.guardrails.masks import Masks
from groundplan.ledger.model import Usage

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
def test_an_image_that_is_sent_itself_and_a_text_go_on(way: Any) -> None:
    check(way({"type": "input_image", "image_url": PICTURE}))
    check(way({"type": "input_text", "text": "hello", "image_url": None}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "piece", [{"type": "input_audio", "audio": "AAAA"}, {"type": "input_image", "image_url": PICTURE}]
)
def test_what_no_check_can_look_at_is_named_where_the_workload_demands_it(way: Any, piece: dict[str, Any]) -> None:
    rules = Guardrails(input={"personal_data": "mask"})
    guarding = SimpleNamespace(guard=Guard.of(rules), masks=Masks(), findings=Findings())
    guard, event = ConversationGuard(cast(Any, guarding)), way(piece)
    with pytest.raises(Denied) as refused:
        guard.sent(event, 100)
    assert refused.value.code == "guardrail_unchecked"


@pytest.mark.parametrize("kind", ["input_image_buffer.append", "input_audio_buffer.append_video_frame"])
def test_pictures_beside_items_are_seen_by_no_check_either(kind: str) -> None:
    guarding = SimpleNamespace(
        guard=Guard.of(Guardrails(input={"secrets": "block"})), masks=Masks(), findings=Findings()
    )
    with pytest.raises(Denied, match="image"):
        ConversationGuard(cast(Any, guarding)).sent({"type": kind, "image": "AAAA"}, 100)


@pytest.mark.parametrize("place", ["session", "response"])
def test_no_session_searches_or_asks_elsewhere(place: str) -> None:
    """Qwen-Omni's searches are billed beside its responses."""
    for name, value in (("enable_search", True), ("search_parameters", {}), ("fallbacks", ["m"])):
        with pytest.raises(Invalid, match=name):
            check({"type": "x", place: {name: value}})
    check({"type": "x", place: {"enable_search": False, "fallbacks": [], "provider": None}})
    with pytest.raises(Invalid, match="enable_search"):
        check({"type": "x", place: {"Enable_Search": True}})


@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"input": {"transcription": {"model": "whisper-1"}}}},
        {"audio": {"input": {"transcription": {}}}},
        {"input_audio_transcription": {}},
    ],
)
def test_a_transcription_by_whatever_a_provider_takes_for_usual_is_refused(session: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="transcription"):
        check({"type": "session.update", "session": session})
    for nothing in (None, False):
        check({"type": "session.update", "session": {"audio": {"input": {"transcription": nothing}}}})


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
        made = bounded(event, 100)[place]
        assert made == {"voice": "ash"} | ({} if left is None else {name: left})
    assert bounded(same := {"type": "x", place: {"voice": "ash"}}, 100) is same


def test_nothing_is_kept_in_traces_at_a_provider() -> None:
    event = {"type": "session.update", "session": {"type": "realtime", "tracing": "auto"}}
    assert untraced(event)["session"] == {"type": "realtime"}
    assert untraced(same := {"type": "session.update", "session": {"tracing": None}}) is same


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
    told = Told()
    asked = told.hear(read_server(msgspec.json.encode({"type": "session.created", "session": session})), 100)
    assert told.waits == waits
    kept = session | ({name: 100} if name else {})
    updated = msgspec.json.encode({"type": "session.updated", "session": kept})
    assert told.hear(read_server(updated), 100) == ""
    assert told.is_ours(read_server(updated), updated) == bool(name)
    assert not told.is_ours(read_server(updated), updated), "the next one is the client's"
    if name:
        sent = msgspec.json.decode(asked)
        assert sent["session"] == {key: session[key] for key in ("type",) if key in session} | {name: 100}
        told.hear(read_server(msgspec.json.encode({"type": "session.created", "session": session})), 100)
        refused = msgspec.json.encode({"type": "error", "error": {"event_id": sent["event_id"], "message": "x"}})
        assert told.is_ours(read_server(refused), refused)


@pytest.mark.parametrize("refused", [False, True])
def test_a_cap_that_is_told_only_once_something_was_changed_is_asked_for_then(refused: bool) -> None:
    """As by Qwen-Omni, whose errors do not say what they refuse: what is the client's is not taken for its answer."""
    told = Told()
    heard = [{"type": "session.created", "session": {}}, {"type": "session.updated", "session": {"max_tokens": 16384}}]
    asked = [told.hear(read_server(msgspec.json.encode(each)), 100) for each in heard]
    assert (asked[0], msgspec.json.decode(asked[1])["session"]) == ("", {"max_tokens": 100})
    then = {"type": "session.updated", "session": {"max_tokens": 16384 if refused else 100}}
    data = msgspec.json.encode(then)
    assert told.hear(read_server(data), 100) == ""
    assert told.is_ours(read_server(data), data) != refused
    assert bounded({"session": {"max_tokens": 16384}}, 100) == {"session": {"max_tokens": 100}}


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
    assert meant(event.error) == status
    details = {"type": "failed", "error": error}
    done = {"type": "response.done", "response": {"status": "failed", "status_details": details}}
    assert failure_of(read_server(msgspec.json.encode(done))) == status


@pytest.mark.parametrize("details", [None, "completed", {"type": "cancelled", "reason": "turn_detected"}])
def test_a_response_that_did_not_fail(details: Any) -> None:
    done = {"type": "response.done", "response": {"status": "completed", "status_details": details}}
    assert failure_of(read_server(msgspec.json.encode(done))) is None


def test_what_vllm_transcribes_is_counted() -> None:
    told = {"type": "transcription.done", "text": "hello", "usage": {"prompt_tokens": 40, "completion_tokens": 7}}
    event = read_server(msgspec.json.encode(told))
    assert event.of_response and usage_of(event) == Usage(input=40, output=7)
