"""Official clients that are newer than what else is installed allows, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_batches import BATCH_RATES

from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

TESTS = Path(__file__).parents[1]
CLIENTS = Path(sys.prefix) / "clients"
needed = pytest.mark.skipif(
    not (CLIENTS / "anthropic").is_dir(), reason="NOT RUN: the newest clients are not there; run `make setup-dev` again"
)


async def run_client_script(script: str, *arguments: str) -> Any:
    """The JSON that a script of tests/clients prints; it must end well."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(TESTS / "clients" / script), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": str(CLIENTS)},
    )  # fmt: skip
    printed, problem = await child.communicate()
    assert child.returncode == 0, problem.decode()
    return json.loads(printed)


@needed
async def test_anthropics_newest_client_does_all_that_is_served(database: Database, tmp_path: Path) -> None:
    """It speaks the version 2026-10-21 of their API, which goes on to an upstream that has the API itself."""
    async with (
        scripted_upstream("native") as (native, one),
        scripted_upstream("chat") as (chat, two),
        installation(database, tmp_path) as stack,
    ):
        places = [
            deployment("native", one, rates=BATCH_RATES, api="anthropic"),
            deployment("chat", two, rates=BATCH_RATES),
        ]
        stack.apply(blueprint(1, places, [workload("assistant", ["native", "chat"])]))
        stack.start()
        await stack.wait_until_ready()
        native.script = chat.script = Script(tokens=7)
        models = ("scripted/native", "scripted/chat")
        told = await run_client_script("anthropic_newest.py", f"http://127.0.0.1:{stack.port}", stack.key(), *models)
        assert native.last is not None and native.last.headers[b"anthropic-version"] == b"2026-10-21"
    assert int(told["version"].partition(".")[0]) >= 2
    for answers in told["answers"].values():
        assert answers["text"] and answers["text"] == answers["streamed"] == answers["instructed"]
        assert (answers["tokens"], answers["stop"]) == ([7, 7, True], "end_turn")
    assert {"auto", *models} <= set(told["models"].pop("listed"))
    assert told["models"] == {"active": True, "retired": [], "one": "active"}
    assert told["files"] == {
        "paged": True, "named": True, "size": 9, "content": "%PDF-1.4\n", "deleted": ["file_deleted"] * 3, "left": [],
    }  # fmt: skip
    assert told["batches"] == {"results": {"a": "succeeded", "b": "succeeded"}, "listed": True}
    assert told["refused"] == {
        "model": ["NotFoundError", "not_found_error", "model_not_found"],
        "speed": ["BadRequestError", "invalid_request_error", "field_unsupported"],
        "organization": ["BadRequestError", "invalid_request_error", "endpoint_unsupported"],
        "key": ["AuthenticationError", "authentication_error", "invalid_api_key"],
    }
