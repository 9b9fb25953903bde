"""What a provider's batch API has to say for itself before orders can be given to it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from tests.unit.call_rig import call_rig

from groundplan.core.ids import new_id
from groundplan.gateway.batches.provider import Away, Input, Provider, Refused, UploadingProvider
from groundplan.gateway.batches.provider_messages import MessageBatches
from groundplan.gateway.batches.provider_openai import OpenAIBatches

ASKED = {"line", "create", "find", "retrieve", "cancel", "content", "delete"}


def test_a_provider_that_leaves_something_open_cannot_be_made() -> None:
    half = type("Half", (Provider,), {name: getattr(OpenAIBatches, name) for name in ASKED - {"cancel"}})
    with pytest.raises(TypeError, match="cancel"):
        half(None, None)
    whole = type("Whole", (Provider,), {name: getattr(OpenAIBatches, name) for name in ASKED})
    assert isinstance(whole(None, None), Provider)


def test_only_where_input_is_a_file_of_its_own_it_is_uploaded() -> None:
    assert issubclass(OpenAIBatches, UploadingProvider)
    assert not issubclass(MessageBatches, UploadingProvider)
    assert not hasattr(MessageBatches, "upload")


async def test_what_is_about_an_account_or_an_order_under_way_refuses_no_order(tmp_path: Path) -> None:
    """Of one that the provider works at already, it may be that it is taken."""
    async with call_rig(tmp_path, ["one"]) as rig:
        (place,) = rig.plan("assistant").names["auto"]
        asked = Input(new_id(), "/v1/chat/completions", tmp_path / "input", "file-1")
        for status, acted in ((402, False), (429, False), (409, True), (503, True)):
            rig.play("one", mode="error", status=status, only="POST /v1/batches")
            with pytest.raises(Away) as away:
                await OpenAIBatches(rig.gateway, place).create(asked)
            assert away.value.acted is acted, status
        rig.play("one", mode="error", status=400, only="POST /v1/batches")
        with pytest.raises(Refused):
            await OpenAIBatches(rig.gateway, place).create(asked)


async def test_a_key_that_a_provider_repeats_in_results_is_kept_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is cut on its way, and in what a batch is called."""
    secret = "sk-provider-0123456789"
    said = (
        f'{{"id":"batch_1 of {secret}","status":"completed","x":"{"-" * 20} {secret}{secret} {secret[:9]}"}}'.encode()
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(said))
            for begin in range(0, len(said), 7):
                writer.write(said[begin : begin + 7])
                await writer.drain()
                await asyncio.sleep(0.002)

    monkeypatch.setenv("PROVIDER_KEY", secret)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    ports = {"one": server.sockets[0].getsockname()[1]}
    async with server, call_rig(tmp_path, ["one"], more={"one": {"key": "env:PROVIDER_KEY"}}, ports=ports) as rig:
        (place,) = rig.plan("assistant").names["auto"]
        provider = OpenAIBatches(rig.gateway, place)
        kept = b"".join([piece async for piece in provider.content("file-1")])
        assert kept == said.replace(secret.encode(), b"[hidden]")
        assert (await provider.retrieve("batch_1")).id == "batch_1 of [hidden]"
