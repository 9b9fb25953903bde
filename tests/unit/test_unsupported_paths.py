"""Each endpoint that an official client has is served, or refused by name with what to do instead."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import openai
import pytest
from tests.unit.call_rig import call_rig

from groundplan.gateway.http.request import Request
from groundplan.gateway.offload import READ_BYTES
from groundplan.gateway.surfaces import stored_api
from groundplan.gateway.surfaces.azure_paths import gateway_path, rewrite_request
from groundplan.gateway.surfaces.unsupported_paths import NOT_SERVED, refusal, unknown_path

DOCS = Path(__file__).parents[2] / "docs" / "refused.md"
ASKED = re.compile(r"""self\._(get|post|delete|put|patch|get_api_list)\(\s*(?:path_template\(\s*)?f?"(/[^"?]*)""")
SERVED = re.compile(
    r"""/v1/(?:chat/completions(?:/ID(?:/messages)?)?|completions|embeddings|moderations|models(?:/ID)?
    |images/(?:generations|edits|variations)|audio/(?:speech|transcriptions|translations)
    |responses(?:/input_tokens|/ID(?:/input_items|/cancel)?)?|files(?:/ID(?:/content)?)?|uploads(?:/ID/(?:parts|complete|cancel))?|batches(?:/ID(?:/cancel)?)?
    |messages(?:/count_tokens|/batches(?:/ID(?:/cancel|/results)?)?)?)""",
    re.VERBOSE,
)
"""Held against the clients' types by test_conformance."""


def _place(library: ModuleType) -> Path:
    assert library.__file__ is not None
    return Path(library.__file__).parent


def endpoints() -> set[tuple[str, str]]:
    """(method, path) of all that the clients' own code asks; an id is `ID`."""
    found = set()
    newest = Path(sys.prefix) / "clients" / "anthropic"  # beside an older one that is imported
    for library, prefix in ((_place(openai), "/v1"), (_place(anthropic), ""), (newest, "")):
        for file in (library / "resources").rglob("*.py"):
            for method, path in ASKED.findall(file.read_text()):
                found.add((method, prefix + re.sub(r"\{\w+\}", "ID", path)))
    return found


def test_every_endpoint_of_an_official_client_is_served_or_refused_by_name() -> None:
    asked, used = endpoints(), set[str]()
    assert len(asked) > 400 and len({path for _, path in asked if SERVED.fullmatch(path)}) >= 30
    for method, path in asked:
        refused = refusal(path.encode())
        if SERVED.fullmatch(path) is not None:
            assert refused is None, path
            continue
        assert refused is not None, f"{method} {path} would be a bare 404"
        name = refused.message.partition(" ")[0]
        assert path.startswith(f"/v1/{name.replace('.', '/')}") and refused.code == "endpoint_unsupported"
        used.add(name.replace(".", "/"))
    assert NOT_SERVED.keys() == used


def test_the_page_of_what_is_refused_names_them_all() -> None:
    text = DOCS.read_text()
    assert [name for name in NOT_SERVED if f"`{name}`" not in text] == []


async def test_official_clients_are_told_what_is_not_served(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        url = f"http://127.0.0.1:{rig.port}"
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="assistant", max_retries=0) as client:
            calls = (
                ("responses.compact", client.responses.compact(model="auto", input="a")),
                ("conversations", client.conversations.create()),
                ("realtime.client_secrets", client.realtime.client_secrets.create()),
                ("models.delete", client.models.delete("ft:any")),
            )
            for name, call in calls:
                with pytest.raises(openai.BadRequestError, match=f"{re.escape(name)} is not served here") as refused:
                    await call
                assert refused.value.code == "endpoint_unsupported" and "hint" in str(refused.value.body)
            assert {"auto", "scripted/one"} <= {model.id async for model in client.models.list()}
        async with anthropic.AsyncAnthropic(base_url=url, api_key="assistant", max_retries=0) as other:
            with pytest.raises(anthropic.BadRequestError) as told:
                await other.completions.create(model="auto", prompt="a", max_tokens_to_sample=5)
        assert isinstance(told.value.body, dict) and told.value.body["type"] == "error"
        assert told.value.body["error"]["hint"] == "Use /v1/messages."


@pytest.mark.parametrize(
    ("where", "model"),
    [
        ({"azure_endpoint": ""}, "one"),
        ({"azure_endpoint": "", "azure_deployment": "one"}, "gpt-4.1"),
        ({"azure_endpoint": "", "azure_deployment": "one"}, None),
        ({"base_url": "/v1"}, "one"),
        ({"base_url": "/openai/v1/"}, "one"),
    ],
)
async def test_azures_client_works_with_the_name_of_a_deployment(
    tmp_path: Path, where: dict[str, Any], model: Any
) -> None:
    """At Azure the name in the path counts, whatever the body says."""
    async with call_rig(tmp_path, ["two", "one"]) as rig:
        told: dict[str, Any] = {
            name: each if "dep" in name else f"http://127.0.0.1:{rig.port}{each}" for name, each in where.items()
        }
        async with openai.AsyncAzureOpenAI(
            **told, api_key="assistant", api_version="2024-10-21", max_retries=0
        ) as client:
            asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "a"}], "max_tokens": 5}
            answer = await client.chat.completions.create(**asked)
            assert answer.model_extra is not None and answer.model_extra["groundplan"]["deployment"] == "one"
            assert rig.models["one"].last is not None and b'"up-one"' in rig.models["one"].last.body
            stream = await client.chat.completions.create(**asked, stream=True)
            assert [chunk async for chunk in stream][-1].model_extra is not None
            large = [{"role": "user", "content": "a" * (READ_BYTES + 1)}]
            answer = await client.chat.completions.create(**{**asked, "messages": large})
            assert answer.model_extra is not None and answer.model_extra["groundplan"]["deployment"] == "one"
            if "azure_deployment" not in where:
                with pytest.raises(openai.NotFoundError, match="nobody") as refused:
                    await client.chat.completions.create(**{**asked, "model": "nobody"})
                assert refused.value.code == "model_not_found"
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=f"http://127.0.0.1:{rig.port}", api_key="assistant", api_version="1", max_retries=0
        ) as client:
            assert "scripted/one" in {each.id async for each in client.models.list()}
            with pytest.raises(openai.BadRequestError, match="vector_stores is not served"):
                await client.vector_stores.create()
        assert rig.gateway.slices.open_reservations == 0


@pytest.mark.parametrize(
    ("path", "here"),
    [
        (b"/openai/deployments/gpt%2Deu/chat/completions", (b"/v1/chat/completions", "gpt-eu")),
        (b"/v1/deployments/a%2Fb/embeddings", (b"/v1/embeddings", "a/b")),
        (b"/openai/deployments/scripted/one/chat/completions", (b"/v1/chat/completions", "scripted/one")),
        (b"/openai/deployments/scripted/one/embeddings", (b"/v1/embeddings", "scripted/one")),
        (b"/openai/v1/deployments/a/audio/speech", (b"/v1/audio/speech", "a")),
        (b"/openai/v1/responses", (b"/v1/responses", "")),
        (b"/openai/files/file-1/content", (b"/v1/files/file-1/content", "")),
        (b"/openai/deployments/a/assistants", None),
        (b"/openai/deployments/a", None),
        (b"/v1/deployments/a/pause", None),
        (b"/openai/v1/messages", None),
        (b"/openai/messages/batches", None),
        (b"/v1/chat/completions", None),
    ],
)
def test_paths_of_azure_are_paths_here(path: bytes, here: tuple[bytes, str] | None) -> None:
    called = {b"/v1/chat/completions", b"/v1/embeddings", b"/v1/audio/speech"}
    assert gateway_path(path, called) == here


@pytest.mark.parametrize("body", [b'{"model": "a", "model": "b"}', b"[]", b"{", b""])
async def test_a_body_that_says_no_one_thing_stays_as_it_came(body: bytes) -> None:
    request = Request(0.0, b"POST", b"/openai/deployments/one/chat/completions?api-version=1", {}, body)
    await rewrite_request(request, b"/v1/chat/completions", "one")
    assert (request.target, request.body, request.upload_state) == (b"/v1/chat/completions?api-version=1", body, "one")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/api/v1/models", "/v1/models"),
        ("/v1/v2/rerank", "/v2/rerank"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
    ],
)
def test_a_base_url_that_ends_elsewhere_is_told(path: str, meant: str) -> None:
    error = unknown_path(path.encode(), ("/v1/chat/completions", "/v1/messages", "/v2/rerank"))
    assert (error.status, error.code) == (404, "path_unknown")
    assert error.hint.startswith(f"This is {meant} below another base URL")
    told = "adds a slash" if "//" in path else "adds /v1" if path.startswith("/v1/v") else "base URL that ends with /v1"
    assert told in error.message


def test_a_slash_at_the_end_and_another_place_of_health_are_told() -> None:
    served = ("/v1/chat/completions", "/v1/embeddings")
    assert "without the slash" in unknown_path(b"/v1/embeddings/", served).hint
    below = stored_api.unknown_path(b"/v1/chat/completions/", "/v1/chat/completions")
    assert "without the slash" in below.hint
    below = stored_api.unknown_path(b"/v1/chat/completions/chat/completions", "/v1/chat/completions")
    assert "base URL that ends with /v1" in below.message
    for path in (b"/health", b"/healthz", b"/v1/health", b"/health/liveliness", b"/ready", b"/ping"):
        assert "/livez" in unknown_path(path, served).hint
    assert "/livez" not in unknown_path(b"/healthy", served).hint


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1beta/models/auto:generateContent", "Google's client are"),
        ("/v1/models/auto:streamGenerateContent", "Google's client are"),
        ("/api/chat", "Ollama's client are"),
        ("/v2/chat", "/v2/chat of Cohere's client is not served"),
        ("/v1/embed", "/v1/embed of Cohere's client"),
        ("/v1/fim/completions", "/v1/fim/completions of Mistral's client"),
        ("/v1/multimodalembeddings", "Voyage's client"),
        ("/key/generate", "/key/generate of LiteLLM's client"),
        ("/v1/model/info", "/v1/model/info of LiteLLM's client"),
    ],
)
def test_clients_of_other_providers_are_told_what_to_use(path: str, told: str) -> None:
    refused = refusal(path.encode())
    assert refused is not None and refused.code == "path_unknown" and told in refused.message
    assert "/v1" in refused.hint or "OpenAI" in refused.hint
    assert refusal(b"/v1/models/llama3:8b") is None, "a name may have a colon"


def test_any_other_path_is_told_what_there_is() -> None:
    assert "POST /v1/a, /v1/b." in unknown_path(b"/v1/nothing\xff", ("/v1/a", "/v1/b")).hint
