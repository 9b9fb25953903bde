"""What an address says of a model server, and the workspace that `init` writes for it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from groundplan.catalog.check import validate
from groundplan.catalog.scaffold import init
from groundplan.catalog.well_known import recognize_upstream
from groundplan.core.errors import Invalid
from groundplan.economics.price import has_listed_price
from groundplan.economics.prices import price_list
from groundplan.release.compile import places
from groundplan.release.compile.pricing import rates_with_successors

TODAY = date(2026, 11, 25)
ANTHROPIC = "https://api.anthropic.com/v1"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai"
AZURE = "https://acme.openai.azure.com/openai/v1"
VERTEX = "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1"


@pytest.mark.parametrize(
    ("said", "url", "api", "prices"),
    [
        ("https://api.anthropic.com", ANTHROPIC, "anthropic", "anthropic"),
        ("https://api.anthropic.com/v1/messages/", ANTHROPIC, "anthropic", "anthropic"),
        ("https://acme.services.ai.azure.com/anthropic", "https://acme.services.ai.azure.com/anthropic/v1", "anthropic",
         "anthropic"),
        ("https://api.deepseek.com/anthropic", "https://api.deepseek.com/anthropic/v1", "anthropic", None),
        ("https://api.openai.com", "https://api.openai.com/v1", "openai", "openai"),
        ("https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1", "openai", "openai"),
        ("https://acme.openai.azure.com/openai/deployments/x/chat/completions", AZURE, "openai", "azure"),
        ("https://acme.openai.azure.com/openai/v1/", AZURE, "openai", "azure"),
        ("https://openai-prod.openai.azure.com/openai/deployments/x", "https://openai-prod.openai.azure.com/openai/v1",
         "openai", "azure"),
        ("https://models.services.ai.azure.com/models", "https://models.services.ai.azure.com/openai/v1", "openai",
         "azure"),
        ("http://models", "http://models", "openai", None),
        ("https://generativelanguage.googleapis.com/v1beta", GEMINI, "openai", "google"),
        ("https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent", GEMINI, "openai",
         "google"),
        ("https://api.groq.com", "https://api.groq.com/openai/v1", "openai", "groq"),
        ("https://api.cohere.com/v2", "https://api.cohere.ai/compatibility/v1", "openai", "cohere"),
        ("https://api.mistral.ai/v1", "https://api.mistral.ai/v1", "openai", "mistral"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/", "https://bedrock-runtime.eu-west-1.amazonaws.com",
         "bedrock", "aws"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1",
         "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "openai", "aws"),
        (VERTEX, VERTEX, "vertexai", "google"),
        (f"{VERTEX}/endpoints/openapi", f"{VERTEX}/endpoints/openapi", "openai", None),
        ("http://vllm.internal:8000/v1", "http://vllm.internal:8000/v1", "openai", None),
        ("http://localhost:11434/v1", "http://localhost:11434/v1", "openai", None),
        ("https://models.example/v1", "https://models.example/v1", "openai", None),
        ("https://[bad", "https://[bad", "openai", None),
    ],
)  # fmt: skip
def test_an_address_says_whose_it_is_and_what_it_speaks(said: str, url: str, api: str, prices: str | None) -> None:
    found = recognize_upstream(said)
    assert (found.url, found.api, found.prices) == (url, api, prices)


def written(folder: Path, url: str, model: str, key: str | None = None, price: str | None = None) -> str:
    init(
        folder, upstream=url, upstream_model=model, upstream_key=key, price=price,
        known_price=lambda name: has_listed_price(name, TODAY), known_context=price_list.context_window,
    )  # fmt: skip
    validate(folder, known_price=lambda name: has_listed_price(name, TODAY))
    return (folder / "groundplan.yaml").read_text()


def test_anthropics_own_api_is_declared_for_its_address(tmp_path: Path) -> None:
    for number, model in enumerate(("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5")):
        text = written(tmp_path / str(number), "https://api.anthropic.com", model)
        assert "api: anthropic" in text and f"url: {ANTHROPIC}\n" in text
        assert "model: anthropic/claude-sonnet-4-5\nupstream_model: claude-sonnet-4-5\n" in text
        assert "key: env:ANTHROPIC_API_KEY\n" in text and "context: 200000 " in text
        assert "groundplan[providers]" in text


def test_a_model_has_the_price_of_its_own_provider(tmp_path: Path) -> None:
    text = written(tmp_path / "a", "https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", key="env:G")
    assert "model: groq/llama-3.3-70b-versatile\nupstream_model: llama-3.3-70b-versatile\n" in text
    assert "key: env:G\n" in text and "api:" not in text.partition("kind: deployment")[2]
    with pytest.raises(Invalid) as refused:
        written(tmp_path / "b", "https://api.groq.com/openai/v1", "claude-sonnet-4-5")
    assert refused.value.code == "price_missing"
    assert "upstream_model: openai/gpt-4o\n" in written(tmp_path / "c", "https://openrouter.ai/api/v1", "openai/gpt-4o")


def test_where_a_region_is_named_its_law_holds(tmp_path: Path) -> None:
    model = "anthropic.claude-3-5-sonnet-20240620-v1:0"
    for name, region, law in (("a", "eu-central-1", "EU"), ("b", "us-east-1", "US"), ("c", "me-south-1", "UNKNOWN")):
        text = written(tmp_path / name, f"https://bedrock-runtime.{region}.amazonaws.com", model)
        assert f"jurisdiction: {law} " in text and "api: bedrock" in text and "\n# key: env:API_KEY" in text

    written(tmp_path / "d", "https://bedrock-runtime.eu-central-1.amazonaws.com", f"global.{model}", price="3/15")
    assert "jurisdiction: UNKNOWN " in (tmp_path / "d" / "groundplan.yaml").read_text()


def test_an_address_of_vertex_ai_without_a_project_is_refused_by_its_option(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        written(tmp_path / "a", "https://europe-west1-aiplatform.googleapis.com", "gemini-2.5-flash")
    assert refused.value.problems[0].message.startswith("--upstream cannot be used") and "PROJECT" in refused.value.hint


@pytest.mark.parametrize("url", ["https://api.anthropic.com", "https://api.anthropic.com/v1"])
def test_messages_go_where_anthropics_clients_send_them(tmp_path: Path, url: str) -> None:
    written(tmp_path / "a", url, "claude-sonnet-4-5")
    file = tmp_path / "a" / "groundplan.yaml"
    file.write_text(file.read_text().replace(f"url: {ANTHROPIC}", f"url: {url}"))
    made, problems = places.compile_deployments(validate(tmp_path / "a"), TODAY, rates_with_successors)
    assert not problems and made[0].url == ANTHROPIC
