"""Efforts of reasoning, as each other provider gets them or they are refused by name."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.test_providers_spoken import (
    LLAMA,
    complete_chat,
    place,
    pytestmark,  # noqa: F401 -- skips and filters of all tests that need the library
    request_body,
    spoken,
    streamed,
)

from groundplan.blueprint.model import Deployment, Rates
from groundplan.core.errors import Invalid
from groundplan.gateway.upstream.providers import capable_deployments
from groundplan.gateway.upstream.translation.failures import ProviderFailure
from groundplan.gateway.upstream.translation.provider_support import BUDGET_MODELS, EFFORTS

EVERY = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "auto")
ADAPTIVE, BUDGETED = "claude-sonnet-4-6", "claude-sonnet-4-5"


def _sent(api: str, body: dict[str, Any]) -> Any:
    """What a request says about reasoning."""
    if api == "anthropic":
        return body.get("thinking"), body.get("output_config")
    if api in ("gemini", "vertexai") and "generationConfig" in body:
        config = body["generationConfig"].get("thinkingConfig")
        return config and {name.replace("_", "").lower(): value for name, value in config.items()}
    return body.get("think" if api == "ollama" else "reasoning_effort")


@pytest.mark.parametrize(
    ("api", "model", "effort", "sent"),
    [
        ("anthropic", ADAPTIVE, None, (None, None)),
        ("anthropic", ADAPTIVE, "none", ({"type": "disabled"}, None)),
        ("anthropic", BUDGETED, "none", ({"type": "disabled"}, None)),
        ("anthropic", ADAPTIVE, "medium", ({"type": "adaptive"}, {"effort": "medium"})),
        ("azure", "up-azure", "minimal", "minimal"),
        ("azure", "up-azure", "none", "none"),
        ("azure", "up-azure", None, None),
        ("gemini", "gemini-2.5-flash", "none", {"thinkingbudget": 0}),
        ("gemini", "gemini-2.5-flash", "low", {"includethoughts": True, "thinkingbudget": 1024}),
        ("gemini", "gemini-3-pro", "low", {"includethoughts": True, "thinkinglevel": "LOW"}),
        ("gemini", "gemini-3-pro", None, None),
        ("groq", "up-groq", "low", "low"),
        ("mistral", "up-mistral", "high", "high"),
        ("ollama", "up-ollama", "none", False),
        ("ollama", "up-ollama", "medium", "medium"),
        ("vertexai", "gemini-3-pro", "high", {"includethoughts": True, "thinkinglevel": "HIGH"}),
        ("vertexai", LLAMA, "low", "low"),
        ("vertexai", "mistral-medium-3", "high", "high"),
    ],
)
async def test_an_effort_is_sent_in_the_words_of_each_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, model: str, effort: str | None, sent: Any
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        where, more = place(api, wire, tmp_path), {"model": model, "reasoning_effort": effort}
        await complete_chat(providers, where, request_body(api, **more))
        assert _sent(api, wire.body) == sent
        if api == "azure":  # whose streams report usage only to a request that asks for it
            told = request_body(api, stream=True, stream_options={"include_usage": True}, **more)
            await streamed(providers, where, told)
            assert _sent(api, wire.body) == sent and wire.body["stream_options"] == {"include_usage": True}


def _capable(api: str, model: str, effort: str) -> bool:
    fields = {"messages": [{"role": "user", "content": "q"}], "reasoning_effort": effort}
    raw = msgspec.json.decode(msgspec.json.encode(fields), type=dict[str, msgspec.Raw])
    deployment = Deployment(
        name="d", site="s", model="m", upstream_model=model, url="https://u", rates=Rates(input=1, output=1), api=api
    )
    try:
        return bool(capable_deployments(raw, [deployment]))
    except Invalid as error:
        assert error.code == "field_untranslatable" and error.details["field"].startswith("reasoning_effort")
        return False


def test_an_effort_that_a_provider_does_not_have_is_refused_by_name() -> None:
    found = {
        (api, model): {effort for effort in EVERY if _capable(api, model, effort)}
        for api, model in [
            *((api, "m") for api in ("azure", "bedrock", "cohere", "gemini", "groq", "mistral", "ollama", "vertexai")),
            ("anthropic", ADAPTIVE), ("anthropic", BUDGETED), ("vertexai", LLAMA), ("vertexai", "mistral-small"),
        ]
    }  # fmt: skip
    assert found == {
        ("bedrock", "m"): set(), ("cohere", "m"): set(), ("anthropic", BUDGETED): {"none"},
        **{(api, "m"): EFFORTS[api] for api in ("azure", "gemini", "groq", "mistral", "ollama", "vertexai")},
        ("anthropic", ADAPTIVE): EFFORTS["anthropic"], ("vertexai", LLAMA): EFFORTS["vertexai/openai"],
        ("vertexai", "mistral-small"): EFFORTS["vertexai/mistral"],
    }  # fmt: skip


async def test_a_model_of_gemini_without_the_effort_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which levels a model has, only the library knows."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        body = request_body("gemini", model="gemini-3-pro", reasoning_effort="none")
        with pytest.raises(ProviderFailure) as refused:
            await providers.chat(place("gemini", wire, tmp_path), body)
        told = json.loads(refused.value.body)["error"]
        assert refused.value.status == 400 and not wire.asked
        assert (told["code"], told["field"]) == ("field_untranslatable", "reasoning_effort")


def test_models_with_a_budget_are_those_of_the_library() -> None:
    library = import_module("any_llm.providers.anthropic.utils")
    assert set(library._BUDGET_THINKING_MODEL_PREFIXES) == set(BUDGET_MODELS)
