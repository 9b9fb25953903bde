"""Each public method of each resource of the official clients works, or is refused by name with what to do instead."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from tests.integration import node_client
from tests.integration.every_method import RecordingTransport, call_outcome, methods
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_tasks import PRICES

from groundplan.testing.database import Database

SERVED = {
    "openai": {
        "audio.speech.create": "works",
        "audio.transcriptions.create": "works",
        "audio.translations.create": "works",
        "batches.cancel": "batch_not_found",
        "batches.create": "file_not_found",
        "batches.list": "works",
        "batches.retrieve": "batch_not_found",
        "chat.completions.create": "works",
        "chat.completions.delete": "completion_not_found",
        "chat.completions.list": "works",
        "chat.completions.messages.list": "completion_not_found",
        "chat.completions.parse": "works",
        "chat.completions.retrieve": "completion_not_found",
        "chat.completions.stream": "works",
        "chat.completions.update": "completion_not_found",
        "completions.create": "works",
        "embeddings.create": "works",
        "files.content": "file_not_found",
        "files.create": "works",
        "files.delete": "file_not_found",
        "files.list": "works",
        "files.retrieve": "file_not_found",
        "files.retrieve_content": "file_not_found",
        "files.wait_for_processing": "file_not_found",
        "images.create_variation": "works",
        "images.edit": "works",
        "images.generate": "works",
        "models.list": "works",
        "models.retrieve": "works",
        "moderations.create": "works",
        "responses.cancel": "response_not_found",
        "responses.create": "works",
        "responses.delete": "response_not_found",
        "responses.input_items.list": "response_not_found",
        "responses.input_tokens.count": "works",
        "responses.parse": "works",
        "responses.retrieve": "response_not_found",
        "responses.stream": "works",
        "uploads.cancel": "upload_not_found",
        "uploads.complete": "upload_not_found",
        "uploads.create": "works",
        "uploads.parts.create": "upload_not_found",
    },
    "anthropic": {
        "files.delete": "file_not_found",
        "files.download": "file_not_found",
        "files.list": "works",
        "files.retrieve_metadata": "file_not_found",
        "files.upload": "works",
        "messages.batches.cancel": "batch_not_found",
        "messages.batches.create": "works",
        "messages.batches.delete": "batch_not_found",
        "messages.batches.list": "works",
        "messages.batches.results": "batch_not_found",
        "messages.batches.retrieve": "batch_not_found",
        "messages.count_tokens": "works",
        "messages.create": "works",
        "messages.parse": "works",
        "messages.stream": "works",
        "models.list": "works",
        "models.retrieve": "works",
    },
}
"""Methods by client, and what becomes of them: `works`, or what is told of an id that nobody has. All others are
refused by name (`endpoint_unsupported`); what is below `beta` is the same as what is not."""
LOCAL = {
    "openai": {
        "audio.voice_consents.create", "audio.voices.create", "admin.organization.external_keys.create",
        "beta.agents.automations.create", "beta.agents.environments.files.create",
        "beta.agents.environments.files.prepare", "beta.agents.environments.files.prepare_directory",
        "beta.agents.environments.files.upload", "beta.agents.sessions.artifacts.for_result",
        "uploads.upload_file_chunked", "webhooks.unwrap", "webhooks.verify_signature",
    },
    "anthropic": {"beta.environments.work.worker", "beta.webhooks.unwrap"},
}  # fmt: skip
"""Those that ask nothing, or not with the arguments that are made up here: their endpoints are in
test_unsupported_paths."""


NODES = {
    "openai": {
        "admin.organization.usage.decisions", "beta.agents.environments.files.prepare",
        "beta.agents.environments.files.upload", "beta.agents.sessions.artifacts.for_result",
        "beta.agents.sessions.stream", "beta.threads.runs.submit_tool_outputs_stream",
        "vector_stores.file_batches.upload_and_poll", "webhooks.unwrap", "webhooks.verify_signature",
    },
    "anthropic": {
        "beta.environments.work.poller", "beta.environments.work.worker", "beta.messages.thread",
        "beta.sessions.events.tool_runner", "beta.webhooks.parse_unverified", "beta.webhooks.unwrap",
    },
}  # fmt: skip
"""The same of Node's clients."""
MOST = {"openai": 400, "anthropic": 150}
ABSENT = {"files.retrieve_content"}
"""Older names that Node's client has not any more."""
OTHERS = {"chat.completions.run_tools": "works", "messages.tool_runner": "works"}
"""What works in one client or below `beta` alone."""


@asynccontextmanager
async def everything(database: Database, folder: Path) -> AsyncIterator[Stack]:
    """A gateway with a deployment of each type."""
    async with scripted_upstream("all") as (_, port), installation(database, folder) as stack:
        places = [deployment(name, port, **more) for name, more in PRICES.items()]
        places.append(deployment("vectors", port, kind="embeddings"))
        also = [place.name for place in places if place.kind not in ("chat", "embeddings")]
        stack.apply(blueprint(1, places, [workload("assistant", ["chat"], embeddings=["vectors"], also=also)]))
        stack.start()
        await stack.wait_until_ready()
        yield stack


def check(name: str, found: Mapping[str, str], local: set[str], absent: set[str]) -> None:
    assert len(found) > MOST[name]
    assert {each for each, told in found.items() if not told and not each.endswith(".connect")} == local
    served = {each: told for each, told in found.items() if told and told != "endpoint_unsupported"}
    known = {each: told for each, told in SERVED[name].items() if each not in absent}
    assert served.items() >= known.items()
    assert {
        each: told for each, told in served.items() if (known | OTHERS).get(each.removeprefix("beta.")) != told
    } == {}


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_each_method_works_or_is_refused_by_name(database: Database, tmp_path: Path, name: str) -> None:
    async with everything(database, tmp_path) as stack:
        heard, key, url = RecordingTransport(), stack.key(), f"http://127.0.0.1:{stack.port}"
        http: Any = httpx.AsyncClient(transport=heard, timeout=30)
        client: Any = (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, admin_api_key=key, max_retries=0, http_client=http)
            if name == "openai"
            else anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, http_client=http)
        )
        async with client:
            found = {each: await call_outcome(each, method, heard) for each, method in methods(client)}
    check(name, found, LOCAL[name], set())


@node_client.needed
@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_so_does_each_method_of_nodes_clients(database: Database, tmp_path: Path, name: str) -> None:
    async with everything(database, tmp_path) as stack:
        url = f"http://127.0.0.1:{stack.port}" + ("/v1" if name == "openai" else "")
        told = json.loads(await node_client.run_script("node_methods.cjs", name, url, stack.key()))
    found = {re.sub("[A-Z]", lambda sign: "_" + sign[0].lower(), each): outcome for each, outcome in told.items()}
    check(name, found, NODES[name], ABSENT)
