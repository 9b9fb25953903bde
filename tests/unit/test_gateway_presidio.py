"""Presidio as a check of what is sent in and of whole answers: found in the search process, over a real socket, and
never in a worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.closing import close
from tests.unit.call_rig import call_rig
from tests.unit.test_gateway_mcp import call_tool, error_code, mcp_rig

from groundplan.blueprint import model as bp
from groundplan.catalog.loader import load_files
from groundplan.core import presidio
from groundplan.core.endpoints import announce
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.home import Home
from groundplan.gateway.guard.media import demands_input_checks
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.governance.guardrails.guard import Guard
from groundplan.knowledge.retrieval.endpoint import find_personal_data
from groundplan.knowledge.retrieval.wire import MOST_PERSONAL, PERSONAL
from groundplan.ledger.model import Reservation
from groundplan.release import extras

NUMBER = "536-90-4399"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "What is it?"}], "max_tokens": 400}


@asynccontextmanager
async def searching(home: Path) -> AsyncIterator[list[bytes]]:
    """What the search process does with this path, on a socket of its own; the bodies that it was sent."""
    bodies: list[bytes] = []

    async def answer(request: Request, response: Response) -> None:
        bodies.append(request.body)
        assert request.target == PERSONAL
        response.send(200, await asyncio.to_thread(find_personal_data, request.body))

    presidio.find("x")  # loads httpx, of which OpenAI's client in this process would see half while a thread loads it
    loop = asyncio.get_running_loop()
    server = Server(answer, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    announce(Home(home), "search", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", "t")
    yield bodies
    await close(listener, server)


def test_kinds_with_check_digits_are_found_and_dates_and_plain_numbers_are_not() -> None:
    text = f"{NUMBER}, NHS 401 023 2137, Aadhaar 312345678909, on 2024-05-01 at 10, order 12345, call 5 pumps."
    assert [(found.kind, text[found.start : found.end]) for found in presidio.find(text)] == [
        ("us_ssn", NUMBER), ("uk_nhs", "401 023 2137"), ("in_aadhaar", "312345678909"),
    ]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_with_what_presidio_finds_is_refused_before_any_of_it_leaves(
    tmp_path: Path, stream: bool
) -> None:
    rules = {"assistant": {"guardrails": bp.Guardrails(presidio="block")}}
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig, searching(tmp_path) as bodies:
        rig.play("one", say=f"The number is {NUMBER}.")
        if stream:
            got = await rig.stream(**ASK)
            assert NUMBER not in got.text and not got.done
        else:
            reply = await rig.chat(**ASK)
            assert (reply.status, json.loads(reply.body)["error"]["code"]) == (403, "guardrail_presidio")
            assert NUMBER.encode() not in reply.body
        rig.play("one", say="The number is 12.")
        assert (await rig.chat(**ASK)).status == 200
        assert len(bodies) == 2


async def test_it_may_only_be_told(tmp_path: Path) -> None:
    rules = {"assistant": {"guardrails": bp.Guardrails(presidio="flag", budget_ms=10_000)}}
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig, searching(tmp_path):
        rig.play("one", say=f"The number is {NUMBER}.")
        answer = json.loads((await rig.chat(**ASK)).body)
    assert answer["choices"][0]["message"]["content"] == f"The number is {NUMBER}."
    assert answer["groundplan"]["guardrails"] == [
        {"place": "output", "check": "presidio", "done": "flag", "finds": 1, "shadow": False}
    ]


@pytest.mark.parametrize(("fail_open", "status"), [(False, 403), (True, 200)])
async def test_where_it_cannot_be_asked_the_workload_says_what_happens(
    tmp_path: Path, fail_open: bool, status: int
) -> None:
    rules = {"assistant": {"guardrails": bp.Guardrails(presidio="block", fail_open=fail_open)}}
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig:
        rig.play("one", say="The number is 12.")
        reply = await rig.chat(**ASK)
        assert reply.status == status
        assert fail_open or json.loads(reply.body)["error"]["code"] == "guardrail_failed"


async def test_what_is_sent_in_is_refused_before_anybody_is_asked_and_nothing_is_held_for_it(tmp_path: Path) -> None:
    rules = {"assistant": {"guardrails": bp.Guardrails(presidio_input="block", budget_ms=10_000)}}
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig, searching(tmp_path) as bodies:
        rig.play("one", say=f"The number is {NUMBER}.")
        reply = await rig.chat(**{**ASK, "messages": [{"role": "user", "content": f"I am {NUMBER}."}]})
        error = json.loads(reply.body)["error"]
        assert (reply.status, error["code"]) == (403, "guardrail_presidio")
        assert (
            error["message"].startswith("the request has personal data (us_ssn). ")
            and NUMBER.encode() not in reply.body
        )
        assert rig.models["one"].last is None
        answer = json.loads((await rig.chat(**ASK)).body)
        held = [each for each in await rig.records() if isinstance(each, Reservation)]
    assert answer["choices"][0]["message"]["content"] == f"The number is {NUMBER}.", "answers are another matter"
    assert len(held) == 1, "of the one that was let through"
    assert [json.loads(each)["text"] for each in bodies] == [f"I am {NUMBER}.", "What is it?"]


async def test_what_our_own_patterns_mask_presidio_does_not_see(tmp_path: Path) -> None:
    rules = {
        "assistant": {
            "guardrails": bp.Guardrails(input={"personal_data": "mask"}, presidio_input="flag", budget_ms=10_000)
        }
    }
    said = "Card 4111 1111 1111 1111, ABN 51 824 753 556"
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig, searching(tmp_path) as bodies:
        rig.play("one", say="Yes.")
        reply = await rig.chat(**{**ASK, "messages": [{"role": "user", "content": said}]})
    (seen,) = [json.loads(each)["text"] for each in bodies]
    assert "4111" not in seen and "51 824 753 556" in seen
    told = {(each["check"], each["done"]) for each in json.loads(reply.body)["groundplan"]["guardrails"]}
    assert reply.status == 200 and ("presidio", "flag") in told


@pytest.mark.parametrize(("fail_open", "status"), [(False, 403), (True, 200)])
async def test_where_it_cannot_be_asked_about_what_is_sent_in_the_workload_says_what_happens(
    tmp_path: Path, fail_open: bool, status: int
) -> None:
    rules = {"assistant": {"guardrails": bp.Guardrails(presidio_input="block", fail_open=fail_open)}}
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig:
        rig.play("one", say="Twelve.")
        reply = await rig.chat(**ASK)
        assert reply.status == status
        assert fail_open or "what could not be checked (presidio)" in json.loads(reply.body)["error"]["message"]


async def test_what_a_tool_is_used_with_is_looked_at_before_it_is_used(tmp_path: Path) -> None:
    async with mcp_rig(tmp_path, guardrails=bp.Guardrails(presidio_input="block")) as (rig, model):
        assert error_code(await call_tool(rig, "crm__echo", text="plain")) == "guardrail_failed" and model.used == []
        async with searching(tmp_path):
            assert error_code(await call_tool(rig, "crm__echo", text=f"I am {NUMBER}")) == "guardrail_presidio"
            assert model.used == []
            assert (await call_tool(rig, "crm__echo", text="plain"))["content"][0]["text"] == "plain"


async def test_in_shadow_it_is_only_counted(tmp_path: Path) -> None:
    rules = {"assistant": {"guardrails": bp.Guardrails(presidio_input="block", shadow=True, budget_ms=10_000)}}
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig, searching(tmp_path):
        rig.play("one", say="Twelve.")
        reply = await rig.chat(**{**ASK, "messages": [{"role": "user", "content": f"I am {NUMBER}."}]})
    assert json.loads(reply.body)["groundplan"]["guardrails"] == [
        {"place": "input", "check": "presidio", "done": "block", "finds": 1, "shadow": True}
    ]


def test_where_only_presidio_looks_at_what_is_sent_in_images_are_not_let_through_unsaid() -> None:
    guard = Guard.of(bp.Guardrails(presidio_input="block"))
    assert demands_input_checks(guard) and guard.input.is_empty and not guard.whole_answer_checks
    assert not demands_input_checks(Guard.of(bp.Guardrails(presidio="block")))


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        find_personal_data(json.dumps({"text": "x" * (MOST_PERSONAL + 1)}).encode())
    assert caught.value.code == "personal_request"


def test_without_the_extra_a_plan_names_the_line_and_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """kind: company
name: acme
format: 1
---
kind: workload
name: support
purpose: Answer
audience: employees
stage: pilot
sensitivity: internal
guardrails: {input: {presidio: flag}, output: {presidio: block}}
"""
    workspace = load_files({"acme.yaml": text})
    assert extras.missing_extras(workspace) == []
    monkeypatch.setattr(presidio, "installed", lambda: False)
    found = extras.missing_extras(workspace)
    assert len(found) == 2
    for problem in found:
        assert problem.code == "extra_missing" and "groundplan[governance]" in str(problem.hint)
        assert str(problem.where).startswith("acme.yaml:11")
    assert found[0].where != found[1].where
    with pytest.raises(GroundplanError, match="not installed"):
        find_personal_data(b'{"text": "x"}')


def test_a_worker_loads_neither_it_nor_numpy() -> None:
    code = "import sys, groundplan.gateway.app, groundplan.gateway.guard.run; print({'numpy', 'spacy', 'presidio_analyzer'} & set(sys.modules))"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
