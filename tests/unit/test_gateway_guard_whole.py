"""Checks that need a whole answer, beside what else a call may have: documents, several choices, functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.call_rig import Rig, call_rig
from tests.unit.test_gateway_guard import guarded

from groundplan.blueprint import model as bp
from groundplan.gateway.call import ground

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

    monkeypatch.setattr(ground, "ask_search", search)
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
        question = {"messages": [{"role": "user", "content": "How much leave?"}], "max_tokens": 100}
        reply = await rig.chat(model="one", stream=stream, **question)
        assert reply.status == 200 and b'"groundplan"' in reply.body
        assert asked == ["How much leave?"]
        assert [each["role"] for each in last(rig, "one")] == ["system", "system", "user"]
        assert [each["role"] for each in last(rig, "two")] == ["system", "user"]
        assert "You check answers" in last(rig, "two")[0]["content"]
        await rig.books()
