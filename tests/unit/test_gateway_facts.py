"""What is read in a restricted workload is read by nobody unless it is written down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply, parse_reply
from tests.unit.call_rig import Rig, call_rig, read_records, wait_until

from groundplan.gateway.call.facts_api import SEARCH, FactsApi
from groundplan.gateway.call.pipeline import Pipeline
from groundplan.ledger.model import Finish


def journal_records(rig: Rig) -> list[Any]:
    return read_records(rig.gateway.journal.folder)


async def searched(rig: Rig) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(rig.request().replace(b"/v1/chat/completions", SEARCH))
    try:
        return parse_reply(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()


async def test_a_search_of_restricted_data_that_cannot_be_recorded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def search(*_: Any) -> tuple[int, bytes]:
        return 200, b'{"passages": []}'

    monkeypatch.setattr(FactsApi, "search", search)
    async with call_rig(tmp_path, ["one"], workloads={"assistant": {"sensitivity": "restricted"}}) as rig:
        rig.server.handler = Pipeline(rig.gateway, facts=FactsApi(rig.gateway, "")).handle
        assert (await searched(rig)).status == 200
        assert [each.endpoint for each in journal_records(rig) if isinstance(each, Finish)] == ["search"]
        rig.gateway.journal._seal("for the test")
        refused = await searched(rig)
        assert (refused.status, refused.code) == (503, "journal_unavailable")


async def test_a_search_of_restricted_data_whose_client_disconnects_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def search(*_: Any) -> tuple[int, bytes]:
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError("nobody waits for it")

    monkeypatch.setattr(FactsApi, "search", search)
    async with call_rig(tmp_path, workloads={"assistant": {"sensitivity": "restricted"}}) as rig:
        rig.server.handler = Pipeline(rig.gateway, FactsApi(rig.gateway, "")).handle
        searching = asyncio.create_task(searched(rig))
        await asked.wait()
        searching.cancel()
        await wait_until(lambda: not rig.gateway.running_calls)
        ends = [(each.endpoint, each.status) for each in await rig.records() if isinstance(each, Finish)]
        assert ends == [("search", "cancelled")]
