"""Checks that need a whole answer, beside what else a call may have: documents, several choices, functions."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.unit.call_rig import Rig, call_rig, wait_until
from tests.unit.test_gateway_guard import ASK, EMAIL, Desk, error, guarded, post

from groundplan.blueprint import model as bp
from groundplan.gateway.call import search_client
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.surfaces import answer_text
from groundplan.testing.scripted_stream import TOOL_PIECES

PASSAGE = {
    "document": "d", "path": "leave.md", "title": "Leave", "source": "handbook", "start_line": 1, "end_line": 2,
    "text": "Leave is 30 days.", "chunk": "c",
}  # fmt: skip


def last(rig: Rig, name: str) -> list[dict[str, Any]]:
    """The messages that an upstream was sent last."""
    request = rig.models[name].last
    assert request is not None
    found: list[dict[str, Any]] = json.loads(request.body)["messages"]
    return found


def searching(monkeypatch: pytest.MonkeyPatch, found: Callable[[str], dict[str, Any]]) -> list[str]:
    """What the search service is asked from now on; `found` are its answers."""
    asked: list[str] = []

    async def search(_gateway: object, question: bytes, *_more: object, **_rest: object) -> bytes:
        asked.append(json.loads(question)["query"])
        return json.dumps({"passages": [], **found(asked[-1])}).encode()

    monkeypatch.setattr(search_client, "ask_search", search)
    return asked


@pytest.mark.parametrize("stream", [False, True])
async def test_a_judge_is_asked_about_the_answer_and_is_given_no_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """It was searched for what the answer says, and where nothing reached the floor the gateway itself said so in the
    judge's place: then each answer was refused."""
    asked = searching(
        monkeypatch, lambda query: {"passages": [PASSAGE]} if query == "How much leave?" else {"abstained": True}
    )
    rules = guarded(judge=bp.Judge(deployment="two", question="Is it advice?", refuse_on="yes"))
    rules["assistant"] |= {"grounding": bp.Grounding(sources=["handbook"]), "system_prompt": "You are ACME's."}
    async with call_rig(tmp_path, workloads=rules) as rig:
        rig.play("one", say="Leave is 30 days [1].")
        rig.play("two", say="no")
        question: dict[str, Any] = {"messages": [{"role": "user", "content": "How much leave?"}], "max_tokens": 100}
        reply = await rig.chat(model="one", stream=stream, **question)
        assert reply.status == 200 and b'"groundplan"' in reply.body
        assert asked == ["How much leave?"]
        assert [each["role"] for each in last(rig, "one")] == ["system", "system", "user"]
        assert [each["role"] for each in last(rig, "two")] == ["system", "user"]
        assert "You check answers" in last(rig, "two")[0]["content"]
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("gone", ["judge", "workload"])
async def test_an_answer_is_judged_by_the_blueprint_under_which_it_was_asked_for(
    tmp_path: Path, gone: str, stream: bool
) -> None:
    """It was paid for by then: a newer one, under which the judge may not be asked any more, refuses nobody's."""
    rules = guarded(judge=bp.Judge(deployment="two", question="Is it advice?", refuse_on="yes"))
    async with call_rig(tmp_path, workloads=rules) as rig:
        live: Any = rig.gateway.live
        rig.play("two", say="no")
        gate = rig.hold("one")
        asked = asyncio.ensure_future(rig.chat(model="one", stream=stream))
        await wait_until(lambda: rig.models["one"].counted == 1)
        made = live.catalog.blueprint
        left = [] if gone == "workload" else [structs.replace(each, deployments=["one"]) for each in made.workloads]
        live.catalog = index(structs.replace(made, number=2, workloads=left))
        gate.release()
        reply = await asked
        assert reply.status == 200 and b"guardrail_" not in reply.body, reply.body
        assert rig.models["two"].counted == 1
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_citation_has_its_position_in_the_delivered_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """And not where it was in what the model said, with stand-ins."""
    searching(monkeypatch, lambda _query: {"passages": [PASSAGE]})
    declared = guarded(input={"personal_data": "mask"})
    declared["assistant"]["grounding"] = bp.Grounding(sources=["handbook"])
    async with call_rig(tmp_path, ("one",), workloads=declared) as rig:
        rig.play("one", say="I wrote to <email_1>. Leave is 30 days [1].")
        if stream:
            got = await rig.stream(**ASK)
            text, (cited,) = got.text, got.facts["citations"]
        else:
            answer = (await rig.chat(**ASK)).json
            text, (cited,) = answer["choices"][0]["message"]["content"], answer["groundplan"]["citations"]
        assert EMAIL in text and text[cited["start"] : cited["end"]].strip() == "Leave is 30 days [1]."


SCHEMA = '{"type": "object", "required": ["ok"]}'
TOOLS = [{"type": "function", "function": {"name": "lookup", "parameters": {}}}]


TOOL_CALL = {"id": "t", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}


def completion(*messages: dict[str, Any]) -> str:
    choices = [{"index": at, "message": each, "finish_reason": "stop"} for at, each in enumerate(messages)]
    return json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("rules", "say"), [({"schema": SCHEMA}, '{"ok": 1}'), ({"grounded": True}, "It is so [1].")])
async def test_each_of_several_choices_is_checked_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, rules: dict[str, Any], say: str
) -> None:
    """Two objects one behind the other are no JSON: with `n` each answer was refused."""
    searching(monkeypatch, lambda _query: {"passages": [PASSAGE]})
    declared = guarded(**rules)
    declared["assistant"]["grounding"] = bp.Grounding(sources=["handbook"])
    async with call_rig(tmp_path, ("one",), workloads=declared) as rig:
        rig.play("one", say=say)
        assert (await rig.chat(stream=stream, n=2, **ASK)).status == 200
        rig.play("one", say="neither")
        refused = await rig.chat(stream=stream, n=2, **ASK)
        assert (refused.status, error(refused.body)["code"]) == (403, f"guardrail_{next(iter(rules))}")
        await rig.books()


def test_a_violating_choice_is_not_excused_by_another_one() -> None:
    good, bad, call = {"content": '{"ok": 1}'}, {"content": "no"}, {"content": None, "tool_calls": [TOOL_CALL]}
    for messages, texts in (
        ((good, bad), ['{"ok": 1}', "no"]), ((good, call), ['{"ok": 1}']), ((call, call), []),
        (({"content": None}, call), [""]), (({**call, "content": "wait"},), ["wait"]),
    ):  # fmt: skip
        assert answer_text.answer_texts(json.loads(completion(*messages))) == texts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "rules",
    [
        {"schema": SCHEMA},
        {"grounded": True},
        {"judge": bp.Judge(deployment="two", question="Is it polite?", refuse_on="no")},
    ],
)
@pytest.mark.parametrize("messages", [False, True])
async def test_an_answer_with_only_a_function_call_has_no_text_to_judge(
    tmp_path: Path, stream: bool, messages: bool, rules: dict[str, Any]
) -> None:
    """Where functions are offered an answer is often no more than a call, and each of them was refused."""
    async with call_rig(tmp_path, workloads=guarded(**rules)) as rig:
        rig.play("one", tool=True, say=" ")
        rig.play("two", say="no")
        path = "/v1/messages" if messages else "/v1/chat/completions"
        tools = [{"name": "look", "input_schema": {}}] if messages else TOOLS
        status, body = await post(rig, path, {"model": "one", "stream": stream, "tools": tools, **ASK})
        assert status == 200, body
        assert re.search(rb'"name": ?"look"', body) and rig.models["two"].counted == 0
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_reviewer_sees_the_function_calls_of_an_answer(tmp_path: Path, stream: bool, path: str) -> None:
    """An answer that only calls one was nothing to look at, and what was released was not seen."""
    async with call_rig(tmp_path, ("one",), workloads={"assistant": {"review": bp.Review()}}) as rig:
        desk = Desk(lambda _text: None)
        rig.gateway.reviews = desk  # type: ignore[assignment]
        rig.play("one", tool=True, say="Let me see")
        shape = {"name": "look", "parameters": {}}
        tools = {
            "/v1/messages": {"name": "look", "input_schema": {}}, "/v1/responses": {"type": "function", **shape},
        }.get(path, {"type": "function", "function": shape})  # fmt: skip
        asked = {"input": "What is there?"} if path == "/v1/responses" else ASK
        status, body = await post(rig, path, {"model": "auto", "stream": stream, "tools": [tools], **asked})
        assert status == 200, body
        (seen,) = desk.texts
        said, call = seen.split("\n")
        assert said == "Let me see" and call.startswith("calls look")
        assert json.loads(call.removeprefix("calls look")) == json.loads("".join(TOOL_PIECES))
        await rig.books()
