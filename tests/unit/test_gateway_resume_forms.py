"""Broken streams of chat that are resumed: where models reason in forms of their own, and where guardrails check what
is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.call_rig import Rig, call_rig, reliability
from tests.unit.raw_upstream import DONE, END, ROLE, STREAM_HEAD, chunk, encode_events, tcp_server

from groundplan.blueprint.model import Guardrails

SECRET = "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx"
PARTS = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}
SUMMARY = {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]}
DETAILS = {
    "content": "",
    "reasoning": "hm",
    "reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}],
}
MANY_WORDS = "and so on " * 12


@asynccontextmanager
async def resumed_rig(folder: Path, first: list[bytes], second: list[bytes], **settings: Any) -> AsyncIterator[Rig]:
    """A worker with two upstreams: the first sends the chunks of `first` and is cut, the second those of `second` and
    the end."""

    def server(*events: bytes) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(STREAM_HEAD + encode_events(ROLE, *events))
            await writer.drain()

        return tcp_server(serve)

    async with AsyncExitStack() as opened:
        ports = {
            "one": await opened.enter_async_context(server(*first)),
            "two": await opened.enter_async_context(server(*second, END, DONE)),
        }
        workloads = {"assistant": {**reliability(on_broken_stream="resume"), **settings}}
        yield await opened.enter_async_context(call_rig(folder, list(ports), ports=ports, workloads=workloads))


@pytest.mark.parametrize("thought", [PARTS, SUMMARY, DETAILS], ids=["Mistral", "Databricks", "OpenRouter"])
async def test_a_stream_goes_on_before_and_behind_a_model_that_reasons(tmp_path: Path, thought: dict[str, Any]) -> None:
    """Reasoning of the first attempt is sent, that of the second is not, and neither prevents a continuation."""
    first = [chunk(thought), chunk({"content": "Hello "})]
    second = [chunk(thought), chunk({"content": [{"type": "text", "text": "all "}]}), chunk({"content": "of you"})]
    async with resumed_rig(tmp_path, first, second) as rig:
        stream = await rig.stream()
        deltas = [c["delta"] for each in stream.chunks for c in each["choices"]]
        texts = [delta["content"] for delta in deltas if isinstance(delta.get("content"), str)]
        assert ("".join(texts), stream.finish, stream.done, stream.errors) == ("Hello all of you", ["stop"], True, [])
        assert [delta for delta in deltas if delta in (PARTS, SUMMARY, DETAILS)] == [thought]
        assert [s.outcome for s in await rig.settlements()] == ["failed", "ok"]
        await rig.books()


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_part_that_is_neither_text_nor_reasoning_is_not_continued(tmp_path: Path, is_first: bool) -> None:
    part, words = chunk({"content": [{"type": "reference", "reference_ids": [1]}]}), chunk({"content": "Hello "})
    async with resumed_rig(tmp_path, [part, words] if is_first else [words], [part]) as rig:
        stream = await rig.stream()
        (error,) = stream.errors
        words_of_it = "it had begun a reference" if is_first else "does not go on as text"
        assert error["code"] == "stream_broken" and words_of_it in error["message"] and not stream.done
        await rig.books()


def guarded(**rules: Any) -> dict[str, Any]:
    return {"guardrails": Guardrails(**rules, hold_bytes=16, budget_ms=10_000)}


async def test_a_denied_phrase_is_found_where_two_models_wrote_it(tmp_path: Path) -> None:
    """The client has its first word already: what is released next is checked together with what was."""
    first = [chunk({"content": MANY_WORDS + "Project "}), chunk({"content": "x" * 100})]
    second = [chunk({"content": "Falcon " + MANY_WORDS})]
    async with resumed_rig(tmp_path, first, second, **guarded(deny_output=["project falcon"])) as rig:
        stream = await rig.stream(max_tokens=900)
        assert stream.text.endswith("Project ") and not stream.done
        assert [error["code"] for error in stream.errors] == ["guardrail_deny"]
        await rig.books()


async def test_both_parts_of_a_resumed_stream_count_in_its_largest_size(tmp_path: Path) -> None:
    one, most = [chunk({"content": MANY_WORDS})], len(MANY_WORDS) * 3 // 2
    async with resumed_rig(tmp_path, one, one, **guarded(max_output_bytes=most)) as rig:
        stream = await rig.stream(max_tokens=900)
        assert [error["code"] for error in stream.errors] == ["guardrail_max_size"] and not stream.done
        await rig.books()


async def test_what_refuses_the_rest_of_a_stream_is_its_error(tmp_path: Path) -> None:
    """Also where the rest is refused before any of it is sent."""
    first, second = [chunk({"content": MANY_WORDS})], [chunk({"content": f"{SECRET} {MANY_WORDS}"})]
    async with resumed_rig(tmp_path, first, second, **guarded(output={"secrets": "block"})) as rig:
        stream = await rig.stream(max_tokens=900)
        assert stream.text and SECRET not in stream.raw.decode()
        (error,) = stream.errors
        assert error["code"] == "guardrail_secrets" and "the answer has a secret" in error["message"]
        await rig.books()
