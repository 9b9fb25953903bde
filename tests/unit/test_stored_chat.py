"""Which chat completions are stored, and what of them: whole, streamed, tried first; never a part or a cached one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.unit.call_rig import Rig, call_rig, reliability

from groundplan.blueprint.model import Cache, Cascade, Guardrails, Keep, Routing
from groundplan.core.errors import Invalid
from groundplan.gateway.call.model_versions import ModelVersions
from groundplan.gateway.surfaces.chat.sealed_store import StoredCompletion
from groundplan.gateway.surfaces.metadata import check_metadata
from groundplan.ledger.completion_store import Row

FULL = Keep(content="full", seconds=60)


class Shelf:
    """What was stored."""

    def __init__(self) -> None:
        self.put_in: list[tuple[Row, StoredCompletion]] = []

    async def put(self, row: Row, person: UUID, kept: StoredCompletion) -> bool:
        assert str(person)
        self.put_in.append((row, kept))
        return True

    @property
    def texts(self) -> list[str]:
        return [kept.completion["choices"][0]["message"]["content"] for _, kept in self.put_in]


@asynccontextmanager
async def storing(folder: Path, **settings: Any) -> AsyncIterator[tuple[Rig, Shelf]]:
    async with call_rig(folder, workloads={"assistant": {"keep": FULL, **settings}}) as rig:
        shelf = Shelf()
        rig.gateway.stored_completions = shelf  # type: ignore[assignment]
        yield rig, shelf


async def test_what_is_stored_is_told_and_nothing_of_it_reaches_the_upstream(tmp_path: Path) -> None:
    async with storing(tmp_path) as (rig, shelf):
        whole = await rig.chat(store=True, metadata={"topic": "a"}, seed=7)
        assert rig.models["one"].last is not None
        sent = json.loads(rig.models["one"].last.body)
        assert sent["store"] is False and "metadata" not in sent and sent["seed"] == 7
        stream = await rig.stream(store=True)
        assert whole.json["groundplan"]["store"] is True and stream.facts["store"] is True
        for row, kept in shelf.put_in:
            assert "groundplan" not in kept.completion and kept.completion["object"] == "chat.completion"
            assert kept.completion["usage"]["completion_tokens"] > 0 and row.id == kept.completion["id"]
            assert kept.messages == [{"role": "user", "content": "a b c d"}]
        assert shelf.texts == [whole.json["choices"][0]["message"]["content"], stream.text]
        assert [kept.metadata for _, kept in shelf.put_in] == [{"topic": "a"}, {}]
        for unwanted in ({}, {"store": False}, {"store": None}):
            assert "store" not in (await rig.chat(**unwanted)).json["groundplan"]
        assert len(shelf.put_in) == 2
        await rig.books()


async def test_the_version_that_a_stored_stream_reports_is_looked_at(tmp_path: Path) -> None:
    async with storing(tmp_path) as (rig, shelf):
        rig.gateway.model_versions = reported = ModelVersions("")
        rig.play("one", fingerprint="fp_7")
        stream = await rig.stream(store=True)
        assert stream.facts["store"] is True and len(shelf.put_in) == 1
        assert [version[3] for version in reported.waiting] == ["fp_7"]


async def test_where_content_is_not_kept_in_full_the_upstream_is_told_to_store_nothing(tmp_path: Path) -> None:
    async with storing(tmp_path, keep=Keep(content="redacted", seconds=60)) as (rig, shelf):
        reply = await rig.chat(store=True, metadata={"topic": "a"})
        assert rig.models["one"].last is not None
        sent = json.loads(rig.models["one"].last.body)
        assert sent["store"] is False and "metadata" not in sent, "which OpenAI takes of what it stores alone"
        assert "store" not in reply.json["groundplan"] and shelf.put_in == []


async def test_the_rest_of_a_broken_stream_is_not_stored_as_an_answer(tmp_path: Path) -> None:
    async with storing(tmp_path, **reliability(on_broken_stream="resume")) as (rig, shelf):
        rig.play("one", mode="cut", chunk_ms=3)
        stream = await rig.stream(store=True)
        assert stream.done and stream.facts["store"] is False and shelf.put_in == []


async def test_what_guardrails_look_at_is_not_stored(tmp_path: Path) -> None:
    async with storing(tmp_path, guardrails=Guardrails(output={"secrets": "block"})) as (rig, shelf):
        reply = await rig.chat(store=True)
        assert reply.status == 200 and reply.json["groundplan"]["store"] is False and shelf.put_in == []


async def test_a_completion_that_is_stored_is_made_for_its_caller(tmp_path: Path) -> None:
    cache = Cache(seconds=60, max_bytes=1 << 20, scope="workload")
    async with storing(tmp_path, cache=cache) as (rig, shelf):
        for store, counted in ((False, 1), (False, 1), (True, 2), (True, 3)):
            await rig.chat(store=store)
            assert rig.models["one"].counted == counted
        assert len(shelf.put_in) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_tried_first_is_stored(tmp_path: Path, stream: bool) -> None:
    routing = Routing(cascade=Cascade(first="one", schema='{"type":"object"}'))
    async with storing(tmp_path, routing=routing) as (rig, shelf):
        rig.play("one", say='{"ok":1}')
        reply = await rig.chat(store=True, stream=stream)
        assert reply.status == 200 and b'"store":true' in reply.body and shelf.texts == ['{"ok":1}']


@pytest.mark.parametrize(
    "wrong",
    ["text", ["a"], {"a": 1}, {"a": None}, {"a" * 65: "b"}, {"a": "b" * 513}, {str(n): "x" for n in range(17)}],
)
async def test_metadata_that_openai_does_not_take_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(Invalid, match="metadata"):
        check_metadata(wrong)
    if wrong == "text":
        async with storing(tmp_path) as (rig, _):
            assert (await rig.chat(store=True, metadata=wrong)).code == "metadata_invalid"
            assert rig.models["one"].counted == 0
    assert check_metadata(None) == {} and check_metadata({"a" * 64: "b" * 512}) == {"a" * 64: "b" * 512}
