"""LiteLLM's configuration becomes a workspace that checks and plans; what has no equal is named with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from groundplan.catalog import units
from groundplan.catalog.check import validate, validate_files
from groundplan.catalog.imports.litellm import import_litellm
from groundplan.catalog.imports.litellm_models import ImportOptions
from groundplan.catalog.imports.machines import region_jurisdiction
from groundplan.catalog.imports.providers import PROVIDERS, is_private, jurisdiction_of, split_model_name
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NEEDED, NO_EQUAL, NO_OWNER, NO_PRICE, SECRET, Verdict
from groundplan.catalog.loader import load_files
from groundplan.catalog.model import DeploymentDoc
from groundplan.cli.main import app
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.money import PICO
from groundplan.economics.price import has_listed_price
from groundplan.economics.prices import price_list
from groundplan.release.compile import context_windows
from groundplan.release.plan import plan
from groundplan.release.warnings import collect

TODAY = date(2026, 11, 25)
HIDDEN_WORD = "hunter2-of-the-fleet"

EVERYTHING = f"""\
include: [more.yaml]
environment_variables:
  GATEWAY_HOST: https://llm.acme.example/v1
  CACHE_PASSWORD: {HIDDEN_WORD}
defaults: &defaults
  api_key: os.environ/AZURE_SE
  rpm: 600
model_list:
  - model_name: assistant
    litellm_params:
      <<: *defaults
      model: azure/acme-4o
      api_base: https://acme-se.openai.azure.com/
      api_version: "2024-10-21"
      region_name: swedencentral
      order: 2
      weight: 3
      tags: [internal]
    model_info: {{base_model: azure/gpt-4o, id: se-1, supports_vision: true}}
  - model_name: assistant
    litellm_params:
      model: openai/gpt-4o
      api_key: {HIDDEN_WORD}
      order: 1
      timeout: 45.5
      stream_timeout: 0.25
      max_retries: 4
      max_tokens: 900
      tpm: 90000
  - model_name: Own Model
    litellm_params:
      model: hosted_vllm/acme/own-8b
      api_base: http://10.1.2.3:8000
    model_info:
      mode: chat
      input_cost_per_token: 0.00000015
      output_cost_per_token: 6.25e-7
      cache_read_input_token_cost: 0.000000075
      input_cost_per_token_above_128k_tokens: 0.0000003
      input_cost_per_second: 0.0001
      max_input_tokens: 32000
      max_output_tokens: 2000
  - model_name: zero
    litellm_params: {{model: ollama/llama3.2}}
    model_info: {{input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: unpriced
    litellm_params: {{model: openai/strange, api_base: os.environ/GATEWAY_HOST, api_key: os.environ/STRANGE}}
  - model_name: vectors
    litellm_params: {{model: openai/text-embedding-3-small}}
    model_info: {{mode: embedding}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_key: os.environ/ANTHROPIC_API_KEY}}
  - model_name: iron
    litellm_params: {{model: sagemaker/acme-endpoint, aws_secret_access_key: {HIDDEN_WORD}}}
  - model_name: "groq/*"
    litellm_params: {{model: "groq/*", api_key: os.environ/GROQ}}
router_settings:
  routing_strategy: latency-based-routing
  num_retries: 2
  timeout: 30
  allowed_fails: 3
  cooldown_time: 60
  redis_host: os.environ/REDIS
  redis_password: {HIDDEN_WORD}
  fallbacks: [{{assistant: [Own Model, nowhere]}}]
  context_window_fallbacks: [{{assistant: [Own Model]}}]
  model_group_alias: {{gpt-4: assistant}}
litellm_settings:
  cache: true
  cache_params: {{type: redis, password: {HIDDEN_WORD}}}
  drop_params: true
  callbacks: [prometheus, langfuse]
  max_budget: 1234.5
  budget_duration: 30d
  some_new_thing: 7
general_settings:
  master_key: sk-1234
  database_url: postgresql://me:{HIDDEN_WORD}@db/x
  alerting: [slack]
guardrails:
  - guardrail_name: pii
    litellm_params: {{guardrail: presidio, mode: pre_call, api_key: {HIDDEN_WORD}}}
mcp_servers:
  search: {{url: https://mcp.example/mcp, auth_value: {HIDDEN_WORD}}}
"""

MORE = """\
model_list:
  - model_name: far
    litellm_params: {model: mistral/mistral-large-latest, api_key: os.environ/MISTRAL}
"""


@cache
def known(model: str) -> bool:
    return has_listed_price(model, TODAY)


def imported(text: str, *, more: Mapping[str, str] | None = None, **asked: Any) -> Verdict:
    asked.setdefault("known_context", lambda model: price_list.context_window(model) is not None)
    return import_litellm({"config.yaml": text, **(more or {})}, "config.yaml", ImportOptions(known, **asked))


def everything(**asked: Any) -> Verdict:
    return imported(EVERYTHING, more={"more.yaml": MORE}, **asked)


def finding_places(verdict: Verdict, state: str, what: str) -> list[str]:
    """`file:line` of the findings of this kind."""
    return [
        f"{f.where.file}:{f.where.line}" for f in verdict.findings if f.state == state and f.what.endswith(what)
    ]  # fmt: skip


def line(text: str) -> int:
    (number,) = [i for i, each in enumerate(EVERYTHING.splitlines(), 1) if text in each]
    return number


def model(name: str, params: str, info: str = "{}") -> str:
    return f"model_list: [{{model_name: {name}, litellm_params: {params}, model_info: {info}}}]"


def models(**params: str) -> str:
    return "model_list:" + "".join(f"\n- {{model_name: {n}, litellm_params: {each}}}" for n, each in params.items())


def test_a_workspace_that_checks_and_plans_comes_out() -> None:
    verdict = everything(owners={"": "ana@acme.example"})
    workspace = validate_files(verdict.files, known_price=known)
    assert set(workspace.workloads) == {
        "assistant", "own-model", "zero", "unpriced", "vectors", "claude", "iron", "far"
    }  # fmt: skip
    assert workspace.workloads["assistant"].deployments == ("assistant-openai",)
    assert workspace.workloads["assistant"].fallbacks == ("assistant-azure", "own-model-hosted-vllm")
    assert workspace.workloads["vectors"].embeddings == ("vectors-openai",)
    result = plan(load_files(verdict.files), None, today=TODAY)
    assert result.refusals == ()
    assert result.blueprint is not None
    served = {workload.name: workload for workload in result.blueprint.workloads}
    assert served["assistant"].deployments == ["assistant-openai", "assistant-azure", "own-model-hosted-vllm"]
    assert served["assistant"].attempts == 7 and served["assistant"].deadline_ms == 45_500
    assert {budget.covers for budget in result.blueprint.budgets} >= {"company", "workload/assistant"}


def test_the_verdict_counts_and_names_places() -> None:
    verdict = everything(owners={"zero": "zoe@acme.example"})
    count = verdict.counts()
    assert verdict.models == 10
    assert verdict.summary().startswith(f"10 models, 2 without price, 7 without owner, {count[NO_EQUAL]} settings")
    assert finding_places(verdict, NO_PRICE, "unpriced") == [f"config.yaml:{line('openai/strange')}"]
    assert finding_places(verdict, NO_EQUAL, "wildcard model") == [f"config.yaml:{line('api_key: os.environ/GROQ')}"]
    assert finding_places(verdict, CHANGED, "guardrails") == [f"config.yaml:{line('guardrail_name: pii')}"]
    assert finding_places(verdict, CHANGED, "mcp_servers") == [f"config.yaml:{line('search:')}"]
    assert finding_places(verdict, NO_EQUAL, "some_new_thing") == [f"config.yaml:{line('some_new_thing')}"]
    assert finding_places(verdict, CARRIED, "routing_strategy") == [f"config.yaml:{line('routing_strategy')}"]
    assert finding_places(verdict, NO_EQUAL, "input_cost_per_second") == [
        f"config.yaml:{line('input_cost_per_second')}"
    ]
    assert finding_places(verdict, CHANGED, "context_window_fallbacks") == [
        f"config.yaml:{line('context_window_fallbacks')}"
    ]
    assert finding_places(everything(owners={"": "a@b.example"}), CHANGED, "vectors") == [
        f"config.yaml:{line('name: vectors')}"
    ]
    assert finding_places(verdict, NEEDED, "virtual keys") and finding_places(verdict, CHANGED, "supports_vision")
    assert finding_places(verdict, NEEDED, "assistant")
    assert finding_places(verdict, NO_OWNER, "far") == ["more.yaml:2"]
    each_attempt = f"config.yaml:{line('timeout: 45.5')}"
    assert each_attempt in finding_places(verdict, CHANGED, "timeout")
    assert all(f.here and f.where.line > 0 for f in verdict.findings)


def test_every_key_of_the_file_is_named() -> None:
    """Nothing is dropped without a word: each scalar's key is in some finding, or is what the import reads."""
    verdict = everything()
    told = " ".join(f"{f.what} {f.here}" for f in verdict.findings)
    for key in (
        "rpm", "tpm", "weight", "tags", "api_version", "order", "timeout", "stream_timeout", "max_retries",
        "max_tokens", "base_model", "id", "mode", "max_input_tokens", "max_output_tokens", "aws_secret_access_key",
        "num_retries",
        "allowed_fails", "cooldown_time", "redis_host", "redis_password", "fallbacks", "model_group_alias", "cache",
        "cache_params", "drop_params", "callbacks", "max_budget", "master_key", "database_url", "alerting",
        "GATEWAY_HOST", "CACHE_PASSWORD", "defaults",
    ):  # fmt: skip
        assert key in told, key


def test_what_is_to_be_said_can_be_pasted_into_a_shell() -> None:
    verdict = imported(model('"a b/c"', "{model: openai/own-x}"))
    told = " ".join(each.todo for each in verdict.findings)
    assert "--owner 'a b/c'=E-MAIL" in told and "--price 'a b/c'=IN/OUT" in told


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("cooldown_time", "learned from its failures"),
        ("configurable_clientside_auth_params", "never sent by callers"),
        ("use_in_pass_through", "only calls of declared workloads"),
        ("additional_drop_params", "never dropped in silence"),
        ("auto_router_config", "model `auto` chooses"),
        ("otpm", "question and answer together"),
        ("ssl_verify", "always verified"),
        ("mock_timeout", "a deployment is real"),
        ("top_k", "nothing is added"),
    ],
)
def test_what_the_peer_itself_heeds_is_not_told_as_a_field_of_calls(name: str, here: str) -> None:
    """Beside a model stand settings of the proxy, and fields that it adds to calls: callers can send these alone."""
    verdict = imported(model("x", f"{{model: openai/gpt-4o, {name}: 1}}"))
    (found,) = (each for each in verdict.findings if each.what == f"litellm_params.{name}")
    assert here in found.here and ("Callers send it" in found.todo) == (name == "top_k")


def test_prices_are_exact_and_never_understated() -> None:
    workspace = validate_files(everything(owners={"": "ana@acme.example"}).files)
    (price,) = workspace.deployments["own-model-hosted-vllm"].price
    assert price.input == units.token_price("0.15 USD/Mtok")
    assert price.long is not None and price.long.above == 128_000
    assert price.long.input == units.token_price("0.30 USD/Mtok") and price.long.output is None
    assert price.output == units.token_price("0.625 USD/Mtok")
    assert price.cache_read == units.token_price("0.075 USD/Mtok")
    assert workspace.deployments["zero-ollama"].price[0].free
    assert workspace.deployments["assistant-azure"].model == "azure/gpt-4o"
    beside = "{model: azure/prod, api_base: https://a.openai.azure.com, base_model: azure/gpt-4o-mini}"
    assert deployed(beside, "{base_model: azure/gpt-4o}").model == "azure/gpt-4o-mini"
    assert workspace.deployments["assistant-azure"].upstream_model == "acme-4o"


def test_prices_of_batches_tiers_pictures_and_hours() -> None:
    info = (
        "{input_cost_per_token: 2e-6, output_cost_per_token: 8e-6, input_cost_per_token_batches: 1e-6, "
        "output_cost_per_token_batches: 4e-6, output_cost_per_token_priority: 1.6e-5, input_cost_per_request: 0.01, "
        "input_cost_per_image: 0.002, cache_creation_input_token_cost: 2.5e-6, "
        "cache_creation_input_token_cost_above_1hr: 4e-6, input_cost_per_token_flex: 1e-6, "
        "input_cost_per_token_above_128k_tokens: 3e-6, input_cost_per_token_above_200k_tokens: 4e-6}"
    )
    verdict = imported(model("x", "{model: openai/own-x}", info), owners={"": "a@b.example"})
    (price,) = validate_files(verdict.files).deployments["x-openai"].price
    mtok = units.token_price
    assert price.batch is not None and price.priority is not None and price.long is not None
    assert (price.batch.input, price.batch.output) == (mtok("1 USD/Mtok"), mtok("4 USD/Mtok"))
    assert (price.priority.input, price.priority.output) == (None, mtok("16 USD/Mtok"))
    assert (price.request, price.image) == (units.usd("0.01 USD"), units.usd("0.002 USD"))
    assert price.cache_write == mtok("4 USD/Mtok")  # of two for the same, the dearest
    assert (price.long.above, price.long.input) == (128_000, mtok("4 USD/Mtok"))
    assert price.flex is not None and (price.flex.input, price.flex.output) == (mtok("1 USD/Mtok"), None)
    assert finding_places(verdict, CHANGED, "cache_creation_input_token_cost_above_1hr")


def test_rates_weights_and_retries_have_equals() -> None:
    text = """\
model_list:
  - model_name: pair
    litellm_params: {model: openai/gpt-4o, weight: 0.9, rpm: 480, tpm: 100000, max_parallel_requests: 8}
  - model_name: pair
    litellm_params: {model: groq/llama-3.3-70b-versatile, weight: 0.1, max_budget: 5, budget_duration: 1d}
  - model_name: alone
    litellm_params: {model: openai/gpt-4o-mini}
router_settings: {routing_strategy: least-busy, num_retries: 2}
general_settings: {global_max_parallel_requests: 64}
"""
    verdict = imported(text, owners={"": "a@b.example"})
    workspace = validate_files(verdict.files, known_price=known)
    assert {name: doc.weight for name, doc in workspace.deployments.items()} == {
        "pair-openai": 90, "pair-groq": 10, "alone-openai": 1
    }  # fmt: skip
    assert workspace.workloads["pair"].reliability.balance == "least-outstanding"
    assert workspace.workloads["pair"].reliability.retries.same == 0
    assert workspace.workloads["alone"].reliability.retries.same == 2
    assert (workspace.workloads["pair"].limits.attempts, workspace.workloads["alone"].limits.attempts) == (4, 3)
    limits = {doc.covers: doc for doc in workspace.limits.values()}
    pair = limits["deployment/pair-openai"]
    assert [(rate.amount, rate.period) for rate in (*pair.requests, *pair.tokens)] == [
        (480, "minute"), (100_000, "minute")
    ]  # fmt: skip
    assert pair.concurrent == 8 and limits["company"].concurrent == 64
    assert [(rate.amount, rate.period) for rate in limits["deployment/pair-groq"].cost] == [(5 * PICO, "day")]
    assert verdict.counts()[NO_EQUAL] == 0
    for key in ("rpm", "tpm"):  # by which the peer only weighs, so that a limit is something else
        assert finding_places(verdict, CHANGED, key) and not finding_places(verdict, CARRIED, key)
    assert plan(load_files(verdict.files), None, today=TODAY).refusals == ()


@pytest.mark.parametrize(
    ("first", "second", "strategy", "weights"),
    [
        ("rpm: 10", "rpm: 1000", "simple-shuffle", (10, 1000)),
        ("rpm: 500, tpm: 1", "rpm: 50000", "simple-shuffle", (10, 1000)),
        ("tpm: 2", "tpm: 6", "simple-shuffle", (2, 6)),
        ("rpm: 10", "tpm: 1000", "simple-shuffle", (10, 0)),
        ("weight: 9", "rpm: 7", "simple-shuffle", (9, 0)),
        ("weight: 2000", "weight: 500", "simple-shuffle", (1000, 250)),
        ("weight: 9", "rpm: 7", "least-busy", (9, 1)),
        ("rpm: 10", "rpm: 1000", "latency-based-routing", (1, 1)),
        ("rpm: 10", "rpm: 1000, order: 2", "simple-shuffle", (1, 1)),
    ],
)
def test_calls_are_shared_as_they_were(first: str, second: str, strategy: str, weights: tuple[int, int]) -> None:
    """The proxy's own shuffle weighs by the first of `weight`, `rpm` and `tpm` that anything says, the others by 0."""
    listed_ = "".join(f"\n- {{model_name: x, litellm_params: {{model: openai/gpt-4o, {m}}}}}" for m in (first, second))
    verdict = imported(f"model_list:{listed_}\nrouter_settings: {{routing_strategy: {strategy}}}")
    deployments = validate_files(verdict.files, known_price=known).deployments
    assert tuple(deployments[name].weight for name in ("x-openai", "x-openai-2")) == weights
    assert bool(finding_places(verdict, CHANGED, "x")) == ("weight" not in first and weights != (1, 1))


def test_what_the_proxy_itself_does_not_read_is_left_out_and_told() -> None:
    wrong = {
        "general_settings": ("fallbacks", "num_retries", "request_timeout", "routing_strategy"),
        "router_settings": ("max_budget", "budget_duration", "global_max_parallel_requests"),
        "model_info": ("timeout", "weight", "order", "max_budget"),
    }
    info = ", ".join(f"{key}: 1" for key in wrong["model_info"])
    text = model("x", "{model: openai/gpt-4o}", f"{{{info}, rpm: 5, api_key: {HIDDEN_WORD}}}")
    for section in ("general_settings", "router_settings"):
        text += f"\n{section}: {{{', '.join(f'{key}: 1' for key in wrong[section])}}}"
    verdict = imported(text)
    for section, keys in wrong.items():
        assert all(finding_places(verdict, NO_EQUAL, f"{section}.{key}") for key in keys)
    assert finding_places(verdict, SECRET, "model_info.api_key") and finding_places(verdict, CHANGED, "rpm")
    (limit,) = validate_files(verdict.files, known_price=known).limits.values()
    assert [(rate.amount, rate.period) for rate in limit.requests] == [(5, "minute")]


@given(st.integers(1, 10**15), st.integers(1, 10**15))
@settings(max_examples=60)
def test_any_price_for_a_token_is_the_same_for_a_million(first: int, second: int) -> None:
    given_, generated = Decimal(first).scaleb(-18), Decimal(second).scaleb(-18)
    text = model("x", "{model: hosted_vllm/x, api_base: 'http://localhost:1'}",
                 f"{{input_cost_per_token: '{given_}', output_cost_per_token: '{generated}'}}")  # fmt: skip
    (price,) = validate_files(imported(text, owners={"": "a@b.example"}).files).deployments["x-hosted-vllm"].price
    assert (price.input, price.output) == (first, second)


def test_secrets_are_neither_copied_nor_told() -> None:
    verdict = everything(owners={"": "ana@acme.example"})
    told = json.dumps(verdict.body()) + "".join(verdict.files.values())
    assert HIDDEN_WORD not in told and "sk-1234" not in told
    for what in ("api_key", "redis_password", "master_key", "database_url", "CACHE_PASSWORD", "aws_secret_access_key"):
        assert finding_places(verdict, SECRET, what), what
    for what in ("guardrails.litellm_params.api_key", "mcp_servers.auth_value", "cache_params.password"):
        assert finding_places(verdict, SECRET, what), what
    workspace = validate_files(verdict.files)
    assert workspace.deployments["assistant-openai"].key == "env:ASSISTANT_OPENAI_KEY"
    assert workspace.deployments["assistant-azure"].key == "env:AZURE_SE"
    assert workspace.deployments["vectors-openai"].key == "env:OPENAI_API_KEY"


def test_credentials_in_an_address_are_a_secret() -> None:
    verdict = imported(model("x", "{model: openai/gpt-4o, api_base: 'https://ana:hunter2@host.example/v1'}"))
    (found,) = (each for each in verdict.findings if each.state == SECRET)
    assert (found.what, found.here) == ("api_base", "credentials stand in the address: not copied")
    assert "Write https://HOST/PATH alone." in found.todo and not finding_places(verdict, NEEDED, "api_base")
    assert "hunter2" not in json.dumps(verdict.body()) + "".join(verdict.files.values())
    elsewhere = imported(model("x", "{model: openai/gpt-4o, api_base: 'https://host.example/v1/@ana'}"))
    assert not finding_places(elsewhere, SECRET, "api_base")


def test_references_and_names_are_no_secrets() -> None:
    text = model("x", "{model: openai/gpt-4o, api_key: os.environ/KEY, litellm_credential_name: shared}")
    text += """
credential_list: [{credential_name: shared, credential_values: {api_key: os.environ/KEY}}]
general_settings: {master_key: os.environ/MASTER, custom_auth: mine.auth, litellm_key_header_name: x-key}
litellm_settings: {cache_params: {password: os.environ/REDIS, ttl: 60}}
"""
    assert imported(text).counts()[SECRET] == 0


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("", "https://api.anthropic.com/v1"),
        ("api_base: https://api.anthropic.com, ", "https://api.anthropic.com/v1"),
        ("api_base: https://way.example/anthropic, ", "https://way.example/anthropic/v1"),
        ("api_base: https://way.example/v1/, ", "https://way.example/v1"),
        ("api_base: https://way.example/v1/messages, ", "https://way.example/v1"),
    ],
)
def test_anthropics_messages_are_below_the_address_that_comes_out(base: str, url: str) -> None:
    """LiteLLM puts `/v1/messages` behind its base; here `/messages` is put behind it."""
    text = model("x", f"{{model: anthropic/claude-sonnet-4-5, {base}api_key: os.environ/KEY}}")
    verdict = imported(text, owners={"": "a@b.example"}, prices={"x": "1/2"})
    assert validate_files(verdict.files).deployments["x-anthropic"].url == url


@pytest.mark.parametrize("info", ["{mode: realtime}", "{}"])
def test_conversations_have_a_deployment_of_their_type(info: str) -> None:
    text = model("talk", "{model: openai/gpt-realtime, api_key: os.environ/KEY}", info)
    text += "\n- {model_name: chat, litellm_params: {model: openai/gpt-4o, api_key: os.environ/KEY}}"
    text = text.replace("model_list: [", "model_list:\n- ").replace("}]\n", "}\n")
    verdict = imported(text, owners={"": "a@b.example"}, prices={"talk": "4/16"})
    workspace = validate_files(verdict.files)
    assert workspace.deployments["talk-openai"].type == "realtime"
    assert workspace.workloads["talk"].also == ("talk-openai",) and not finding_places(verdict, NO_EQUAL, "mode")


@pytest.mark.parametrize(
    ("name", "price", "told"),
    [
        ("openai/dall-e-3", "0.04/image", "images: {any: 0.04 USD}"),
        ("openai/whisper-1", "0.006/minute", "minute: 0.006 USD"),
        ("openai/tts-1", "15/characters", "characters: 15.00 USD"),
        ("cohere/rerank-v3.5", "0.002/request", "request: 0.002 USD"),
        ("openai/text-embedding-3-small", "0.02/0", "input: 0.02 USD/Mtok"),
    ],
)
def test_models_of_which_none_talks_are_served_at_a_price_in_their_unit(name: str, price: str, told: str) -> None:
    asked: dict[str, Any] = {"owners": {"": "a@b.example"}, "budget": "5 USD/month"}
    verdict = imported(model("x", f"{{model: {name}}}"), prices={"x": price}, **asked)
    workspace = validate_files(verdict.files)
    assert workspace.workloads["x"].stage == "pilot" and told in verdict.files["deployments.yaml"]
    assert not [*context_windows.context_problems(workspace, TODAY)]
    if name != "openai/text-embedding-3-small":
        without = imported(model("x", f"{{model: {name}}}"), **asked)
        (hint,) = [each.todo for each in without.findings if each.state == NO_PRICE]
        assert f"--price x={price} in USD" in hint


def test_prices_by_the_piece_are_those_of_the_type() -> None:
    for name, info, told in (
        ("openai/dall-e-3", "{output_cost_per_image: 0.08}", "images: {any: 0.08 USD}"),
        ("openai/whisper-1", "{input_cost_per_second: 0.0001, output_cost_per_second: 0.0001}", "minute: 0.006 USD"),
        ("openai/tts-1", "{input_cost_per_character: 0.000015}", "characters: 15.00 USD"),
        ("cohere/rerank-v3.5", "{input_cost_per_query: 0.002}", "request: 0.002 USD"),
    ):
        verdict = imported(model("x", f"{{model: {name}}}", info), owners={"": "a@b.example"}, budget="5 USD/month")
        assert told in verdict.files["deployments.yaml"] and not finding_places(verdict, NO_EQUAL, "second")
        assert not [*context_windows.context_problems(validate_files(verdict.files), TODAY)]


@pytest.mark.parametrize(
    ("name", "price"),
    [("openai/gpt-image-1", "5/40"), ("openai/own-realtime", "4/16"), ("openai/own-transcribe", "6/10")],
)
def test_what_would_have_no_bound_stays_a_comment(name: str, price: str) -> None:
    """What comes out passes `check`."""
    given = {"x": price}
    verdict = imported(model("x", f"{{model: {name}}}"), owners={"": "a@b.example"}, prices=given)
    workspace = validate_files(verdict.files)
    assert (
        not workspace.deployments
        and workspace.workloads["x"].stage == "proposed"
        and finding_places(verdict, NEEDED, "x")
    )


@pytest.mark.parametrize(
    ("name", "info", "serves", "upstream"),
    [
        ("openai/responses/gpt-4o", "{}", ("responses",), "gpt-4o"),
        ("azure/responses/gpt-4o", "{base_model: azure/gpt-4o}", ("responses",), "gpt-4o"),
        ("hosted_vllm/own", "{mode: responses}", ("responses",), "own"),
        ("openai/gpt-4o", "{}", ("responses",), "gpt-4o"),
        ("hosted_vllm/own", "{}", (), "own"),
        ("openai/o1-pro", "{}", ("responses",), "o1-pro"),
        ("azure/gpt-5.1-codex-max", "{}", ("responses",), "gpt-5.1-codex-max"),
    ],
)
def test_responses_go_where_they_are_spoken(name: str, info: str, serves: tuple[str, ...], upstream: str) -> None:
    at = "" if name.startswith("openai/") else "api_base: https://own.example, "
    text = model("x", f"{{model: {name}, {at}api_key: os.environ/KEY}}", info)
    verdict = imported(text, owners={"": "a@b.example"}, prices={"x": "1/2"})
    (made,) = validate_files(verdict.files).deployments.values()
    assert (made.serves, made.upstream_model) == (serves, upstream)
    also_chat = name in ("openai/gpt-4o", "hosted_vllm/own") and info == "{}"
    assert bool(finding_places(verdict, CHANGED, "model")) != also_chat


def test_credentials_that_are_named_are_those_of_the_deployment() -> None:
    text = (
        model("x", "{model: azure/gpt-4o, litellm_credential_name: shared}", "{base_model: azure/gpt-4o}")
        + """
credential_list:
- credential_name: shared
  credential_values: {api_key: os.environ/AZ_KEY, api_base: "https://acme.openai.azure.com"}
  credential_info: {description: all of us}
"""
    )
    verdict = imported(text, owners={"": "a@b.example"})
    (made,) = validate_files(verdict.files).deployments.values()
    assert (made.key, made.url) == ("env:AZ_KEY", "https://acme.openai.azure.com/openai/v1")
    assert verdict.counts()[SECRET] == 0 and not finding_places(verdict, NO_EQUAL, "litellm_credential_name")
    literal = imported(text.replace("os.environ/AZ_KEY", HIDDEN_WORD), owners={"": "a@b.example"})
    assert len(finding_places(literal, SECRET, "api_key")) == 1 and HIDDEN_WORD not in "".join(literal.files.values())
    unknown = imported(text.replace("credential_name: shared\n", "credential_name: others\n"))
    assert finding_places(unknown, NEEDED, "litellm_credential_name")


@pytest.mark.parametrize("word", ["none", "EMPTY", "dummy", "lm-studio", "sk-no-key-required"])
def test_a_word_in_the_place_of_a_key_is_no_secret(word: str) -> None:
    own = imported(model("x", f"{{model: hosted_vllm/own, api_base: 'http://10.0.0.5:8000', api_key: {word}}}"))
    assert "key:" not in own.files["deployments.yaml"] and own.counts()[SECRET] == 0
    theirs = imported(model("x", f"{{model: openai/gpt-4o, api_key: {word}}}"))
    assert "key: env:X_OPENAI_KEY" in theirs.files["deployments.yaml"]


def test_what_looks_like_a_real_key_is_no_error_and_is_hidden() -> None:
    secret = "sk-" + "a1B2" * 10
    verdict = imported(model("x", f"{{model: openai/gpt-4o, api_key: {secret}}}"), owners={"": "a@b.example"})
    assert secret not in json.dumps(verdict.body()) + "".join(verdict.files.values())
    assert len(finding_places(verdict, SECRET, "api_key")) == 1


def test_a_key_of_a_wildcard_model_is_told_though_the_model_is_not_taken() -> None:
    text = model('"openai/*"', f"{{model: 'openai/*', api_key: {HIDDEN_WORD}, aws_secret_access_key: os.environ/KEY}}")
    verdict = imported(text)
    assert finding_places(verdict, NO_EQUAL, "wildcard model") and len(finding_places(verdict, SECRET, "api_key")) == 1
    assert verdict.counts()[SECRET] == 1 and "1 secret not copied" in verdict.summary()
    assert HIDDEN_WORD not in json.dumps(verdict.body())


def test_a_provider_that_is_not_known_needs_an_address() -> None:
    verdict = imported(model("x", "{model: nobody/some-model}"), owners={"": "a@b.example"}, prices={"x": "free"})
    assert finding_places(verdict, NEEDED, "api_base") and not validate_files(verdict.files).deployments
    text = model("x", "{model: nobody/some-model, api_base: 'https://a.example/v1'}")
    verdict = imported(text, owners={"": "a@b.example"}, prices={"x": "free"})
    assert validate_files(verdict.files).deployments["x-nobody"].upstream_model == "some-model"


def test_keys_beside_the_parameters_are_read_or_told() -> None:
    text = "model_list: [{model_name: x, rpm: 20_0, colour: red, litellm_params: {model: gpt-4o}}]"
    verdict = imported(text, owners={"": "a@b.example"})
    (limit,) = validate_files(verdict.files).limits.values()
    assert [(rate.amount, rate.period) for rate in limit.requests] == [(200, "minute")]
    assert finding_places(verdict, NO_EQUAL, "colour") == ["config.yaml:1"]


def test_without_an_owner_nothing_may_be_called() -> None:
    verdict = everything()
    assert verdict.served == 0 and verdict.counts()[NO_OWNER] == verdict.workloads
    workspace = validate_files(verdict.files, known_price=known)
    assert {workload.stage for workload in workspace.workloads.values()} == {"proposed"}
    assert workspace.company.separation == "enforced"


def test_several_owners_are_separated() -> None:
    workspace = validate_files(everything(owners={"": "ana@acme.example", "far": "fay@acme.example"}).files)
    assert workspace.company.separation == "enforced"
    assert workspace.workloads["far"].owners.business == ("fay@acme.example",)


def test_what_is_incomplete_is_a_comment_that_says_what_it_lacks() -> None:
    verdict = everything(owners={"": "ana@acme.example"})
    workspace = validate_files(verdict.files)
    assert "unpriced-openai" not in workspace.deployments
    assert "It lacks a price.\n# ---\n# kind: deployment\n# name: unpriced-openai" in verdict.files["deployments.yaml"]
    priced = validate_files(everything(owners={"": "ana@acme.example"}, prices={"unpriced": "1/2"}).files)
    assert priced.deployments["unpriced-openai"].url == "https://llm.acme.example/v1"
    assert priced.workloads["unpriced"].stage == "pilot"


def test_an_address_from_the_environment_is_asked_for() -> None:
    text = model("x", "{model: openai/x, api_base: os.environ/BASE}")
    verdict = imported(text, owners={"": "a@b.example"}, prices={"x": "free"})
    assert finding_places(verdict, NEEDED, "api_base") and not validate_files(verdict.files).deployments
    verdict = imported(
        text, owners={"": "a@b.example"}, prices={"x": "free"}, values={"BASE": "https://a.example/v1"}
    )  # fmt: skip
    assert validate_files(verdict.files).deployments["x-openai"].url == "https://a.example/v1"


def test_a_number_or_a_model_from_the_environment_is_asked_for() -> None:
    text = models(
        x="{model: os.environ/MODEL, api_base: 'https://a.example/v1', rpm: os.environ/RPM}",
        y="{model: openai/y, tpm: os.environ/TPM}",
    )
    text += "\nrouter_settings: {num_retries: os.environ/RETRIES}\nenvironment_variables: {TPM: '5000'}\n"
    asked: dict[str, Any] = {"owners": {"": "a@b.example"}, "prices": {"x": "free", "y": "free"}}
    verdict = imported(text, **asked)
    told = {finding.what: finding.todo for finding in verdict.findings if finding.state == NEEDED}
    assert told["model"] == "Say --set MODEL=PROVIDER/NAME."
    assert told["router_settings.num_retries"] == "Say --set RETRIES=NUMBER."
    assert [limit.name for limit in validate_files(verdict.files).limits.values()] == ["y-openai"]
    verdict = imported(text, **asked, values={"MODEL": "openai/x", "RPM": "60", "RETRIES": "2", "TPM": "7000"})
    made = validate_files(verdict.files)
    assert made.limits["x-openai"].requests[0].amount == 60 and made.limits["y-openai"].tokens[0].amount == 7000
    assert made.deployments["x-openai"].upstream_model == "x" and made.workloads["x"].limits.attempts == 3
    with pytest.raises(Invalid, match="not a number"):
        imported(text, **asked, values={"MODEL": "openai/x", "RPM": "many"})


def test_a_fallback_by_an_alias_is_the_model_that_it_stands_for() -> None:
    text = models(x="{model: openai/gpt-4o}", y="{model: openai/gpt-4.1}")
    text += "\nrouter_settings:\n  model_group_alias: {z: {model: y, hidden: true}, x: y, w: w}\n"
    text += "  fallbacks: [{x: [z]}, {y: [x, w]}]\n"
    verdict = imported(text, owners={"": "a@b.example"})
    workloads = validate_files(verdict.files, known_price=known).workloads
    assert [list(workloads[name].fallbacks) for name in "xy"] == [["y-openai"], ["x-openai"]]
    assert [finding.here for finding in verdict.findings if "fallback w" in finding.here]


def test_a_fallback_by_an_id_is_that_one_deployment() -> None:
    text = models(a="{model: openai/gpt-4o}", b="{model: groq/llama-3.3-70b-versatile, region_name: us-east-1}")
    text = (
        text.replace("1}}", "1}, model_info: {id: 7}}") + "\n- {model_name: b, litellm_params: {model: openai/gpt-4o}}"
    )
    verdict = imported(f"{text}\nrouter_settings: {{fallbacks: [{{a: ['7']}}]}}", owners={"": "a@b.example"})
    assert validate_files(verdict.files, known_price=known).workloads["a"].fallbacks == ("b-groq",)
    assert not finding_places(verdict, NEEDED, "a") and finding_places(verdict, CARRIED, "region_name")


def test_callers_may_go_on_to_say_what_they_said() -> None:
    """A name that none can be here is an alias of its workload, and so is a further name of the group."""
    entry = "  - model_name: {}\n    litellm_params: {}\n"
    named = {
        "gpt-4.1": "{model: openai/gpt-4.1}",
        "own/Llama 3": "{model: openai/gpt-4o}",
        "plain": "{model: openai/o3}",
    }
    text = "model_list:\n" + "".join(entry.format(name, params) for name, params in named.items())
    text += (
        "router_settings:\n  model_group_alias: {gpt-4: gpt-4.1, old: {model: plain, hidden: true}, lost: nowhere}\n"
    )
    verdict = imported(text, owners={"": "a@b.example"})
    workloads = validate_files(verdict.files, known_price=known).workloads
    assert {name: list(item.aliases) for name, item in workloads.items()} == {
        "gpt-4-1": ["gpt-4.1", "gpt-4"], "own-llama-3": ["own/Llama 3"], "plain": ["old"],
    }  # fmt: skip
    assert [f.here for f in verdict.findings if f.state == NEEDED and "alias lost" in f.here]


def test_how_long_answers_may_be_is_told_and_a_foreign_section_once() -> None:
    text = model("x", "{model: openai/gpt-4o}")
    assert finding_places(imported(text), CHANGED, "max_tokens") == ["config.yaml:1"]
    text = model("x", "{model: openai/gpt-4o, max_tokens: 9}") + "\nx-common: {a: 1, b: {c: [1, 2]}}"
    assert not finding_places(imported(text), CHANGED, "max_tokens")
    assert len(finding_places(imported(text), NO_EQUAL, "x-common")) == 1


@pytest.mark.parametrize(
    ("duration", "limit"),
    [("30d", "50 USD/month"), ("1d", "50 USD/day"), ("1y", "50 USD/year"), (None, "50 USD/total"),
     ("7d", "50 USD/week"), ("9d", "50 USD/month")],
)  # fmt: skip
def test_the_proxy_budget_is_the_companys(duration: str | None, limit: str) -> None:
    text = model("x", "{model: openai/gpt-4o}") + "\nlitellm_settings:\n  max_budget: 50\n"
    text += f"  budget_duration: {duration}\n" if duration else ""
    budgets = validate_files(imported(text).files).budgets
    assert str(budgets["company"].limit) == limit
    assert str(validate_files(imported(text, budget="7").files).budgets["x"].limit) == "7 USD/month"


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_provider_becomes_a_deployment_or_says_what_is_missing(provider: str) -> None:
    text = model("x", f"{{model: {provider}/some-model, api_base: 'https://host.example', region_name: eu-west-1}}")
    verdict = imported(text, owners={"": "a@b.example"}, prices={"x": "1/2"})
    workspace = validate_files(verdict.files, known_price=known)
    assert bool(workspace.deployments) != bool(finding_places(verdict, NEEDED, "x"))
    if workspace.deployments:
        (deployment,) = workspace.deployments.values()
        assert str(deployment.upstream_model).removeprefix("accounts/fireworks/models/") == "some-model"
        assert workspace.sites[deployment.site].jurisdiction == "EU"


def test_vertex_ai_is_addressed_by_project_and_location_or_says_what_is_missing() -> None:
    more = "{model: vertex_ai/gemini-2, vertex_location: europe-west1, vertex_project: acme-1}"
    verdict = imported(model("x", more), owners={"": "a@b.example"}, prices={"x": "1/2"})
    (deployment,) = validate_files(verdict.files, known_price=known).deployments.values()
    assert deployment.url == "https://europe-west1-aiplatform.googleapis.com/v1/projects/acme-1/locations/europe-west1"
    verdict = imported(model("x", more.replace(", vertex_project: acme-1", "")), owners={"": "a@b.example"})
    assert finding_places(verdict, NEEDED, "x") and not validate_files(verdict.files, known_price=known).deployments


def deployed(params: str, info: str = "{}", **asked: Any) -> DeploymentDoc:
    """The one deployment of an entry with a price."""
    asked = {"owners": {"": "a@b.example"}, "prices": {"x": "1/2"}, **asked}
    (found,) = validate_files(imported(model("x", params, info), **asked).files, known_price=known).deployments.values()
    return found


@pytest.mark.parametrize(
    ("params", "url", "api", "upstream"),
    [
        ("model: azure_ai/grok-3, api_base: 'https://x.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview'",
         "https://x.services.ai.azure.com/openai/v1", "openai", "grok-3"),
        ("model: azure_ai/mistral-large, api_base: 'https://m.eastus2.inference.ai.azure.com/v1/'",
         "https://m.eastus2.inference.ai.azure.com/v1", "openai", "mistral-large"),
        ("model: azure_ai/claude-sonnet-4-5, api_base: 'https://x.services.ai.azure.com/anthropic'",
         "https://x.services.ai.azure.com/anthropic/v1", "anthropic", "claude-sonnet-4-5"),
        ("model: azure/4o, api_base: 'https://x.openai.azure.com/openai/deployments/4o/chat/completions?api-version=2024-08-01-preview'",
         "https://x.openai.azure.com/openai/v1", "openai", "4o"),
        ("model: azure/o_series/o3-prod, api_base: 'https://x.openai.azure.com'",
         "https://x.openai.azure.com/openai/v1", "openai", "o3-prod"),
        ("model: azure/4o, api_base: 'https://openai-prod.openai.azure.com/openai/deployments/4o'",
         "https://openai-prod.openai.azure.com/openai/v1", "openai", "4o"),
        ("model: azure_ai/grok-3, api_base: 'https://models-eu.services.ai.azure.com'",
         "https://models-eu.services.ai.azure.com/openai/v1", "openai", "grok-3"),
        ("model: azure_ai/claude-sonnet-4-5, api_base: 'https://anthropic.services.ai.azure.com/anthropic/v1/messages'",
         "https://anthropic.services.ai.azure.com/anthropic/v1", "anthropic", "claude-sonnet-4-5"),
        ("model: bedrock/eu-central-1/anthropic.claude-v2:1", "https://bedrock-runtime.eu-central-1.amazonaws.com",
         "bedrock", "anthropic.claude-v2:1"),
        ("model: 'bedrock/converse/arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0'",
         "https://bedrock-runtime.us-east-1.amazonaws.com", "bedrock",
         "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0"),
        ("model: bedrock/nova/arn:aws:bedrock:us-east-1:1:custom-model-deployment/a1",
         "https://bedrock-runtime.us-east-1.amazonaws.com", "bedrock",
         "arn:aws:bedrock:us-east-1:1:custom-model-deployment/a1"),
        ("model: bedrock/anthropic.claude-v2:1, "
         "model_id: 'arn:aws:bedrock:eu-west-1:1:application-inference-profile/a1'",
         "https://bedrock-runtime.eu-west-1.amazonaws.com", "bedrock",
         "arn:aws:bedrock:eu-west-1:1:application-inference-profile/a1"),
        ("model: bedrock/anthropic.claude-v2:1, aws_region_name: eu-west-1, "
         "aws_bedrock_runtime_endpoint: 'https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com'",
         "https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "bedrock", "anthropic.claude-v2:1"),
        ("model: vertex_ai/gemini-2, vertex_ai_location: global, vertex_ai_project: acme",
         "https://aiplatform.googleapis.com/v1/projects/acme/locations/global", "vertexai", "gemini-2"),
        ("model: vertex_ai/mistral-small@001, vertex_location: global, vertex_project: acme",
         "https://aiplatform.googleapis.com/v1/projects/acme/locations/global", "vertexai", "mistral-small@001"),
        ("model: 'cloudflare/@cf/meta/llama', api_base: https://api.cloudflare.com/client/v4/accounts/1/ai/v1",
         "https://api.cloudflare.com/client/v4/accounts/1/ai/v1", "openai", "@cf/meta/llama"),
        ("model: meta-llama/llama-4, api_base: https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1",
         "openai", "meta-llama/llama-4"),
        ("model: huggingface/org/llama, api_base: https://abc.endpoints.huggingface.cloud",
         "https://abc.endpoints.huggingface.cloud/v1", "openai", "org/llama"),
        ("model: huggingface/together/org/llama", "https://router.huggingface.co/v1", "openai", "org/llama:together"),
        ("model: zai/glm-4.7", "https://api.z.ai/api/paas/v4", "openai", "glm-4.7"),
        ("model: voyage/rerank-2.5", "https://api.voyageai.com/v1", "openai", "rerank-2.5"),
        ("model: mistral/mistral-small-latest, api_base: https://api.mistral.ai", "https://api.mistral.ai/v1", "openai",
         "mistral-small-latest"),
        ("model: ollama_chat/llama3, api_base: 'http://gpu:11434/api/chat'", "http://gpu:11434/v1", "openai", "llama3"),
        ("model: hosted_vllm/own, api_base: 'http://way:8000/serve/own'", "http://way:8000/serve/own", "openai", "own"),
        ("model: gemini/gemini-2.5-flash, api_base: https://generativelanguage.googleapis.com/v1beta",
         "https://generativelanguage.googleapis.com/v1beta/openai", "openai", "gemini-2.5-flash"),
        ("model: cohere_chat/command-r, api_base: https://api.cohere.com/v2/chat",
         "https://api.cohere.ai/compatibility/v1", "openai", "command-r"),
        ("model: azure/4o, api_base: 'https://way.example/openai-eu'", "https://way.example/openai-eu/openai/v1",
         "openai", "4o"),
        ("model: deepseek/deepseek-r1, custom_llm_provider: openrouter", "https://openrouter.ai/api/v1", "openai",
         "deepseek/deepseek-r1"),
        ("model: anthropic/claude-sonnet-4, custom_llm_provider: openai, api_base: 'https://way.example/v1'",
         "https://way.example/v1", "openai", "anthropic/claude-sonnet-4"),
        ("model: azure/4o, custom_llm_provider: azure, api_base: 'https://way.example'",
         "https://way.example/openai/v1", "openai", "4o"),
        ("model: fireworks_ai/llama-v3p3-70b-instruct", "https://api.fireworks.ai/inference/v1", "openai",
         "accounts/fireworks/models/llama-v3p3-70b-instruct"),
    ],
)  # fmt: skip
def test_each_is_asked_where_and_by_the_name_by_which_its_provider_has_it(
    params: str, url: str, api: str, upstream: str
) -> None:
    found = deployed(f"{{{params}}}")
    assert (found.url, found.api, found.upstream_model) == (url, api, upstream)


def test_no_key_goes_to_another_provider_than_its_own() -> None:
    """One that is not known has no address; OpenAI's, which was written there, would have got its key."""
    verdict = imported(model("x", "{model: strange/nova-2, api_key: os.environ/STRANGE}"), prices={"x": "1/2"})
    assert finding_places(verdict, NEEDED, "api_base") and "openai" not in verdict.files["deployments.yaml"]
    assert "upstream_model: nova-2" in verdict.files["deployments.yaml"]
    bare = deployed("{model: claude-sonnet-4-5, api_key: os.environ/ANTHROPIC_API_KEY}")
    assert (bare.url, bare.api, str(bare.key)) == ("https://api.anthropic.com/v1", "anthropic", "env:ANTHROPIC_API_KEY")
    verdict = imported(model("x", "{model: mistral-large-latest, api_key: os.environ/MISTRAL}"), prices={"x": "1/2"})
    assert finding_places(verdict, NEEDED, "api_base") and "openai.com" not in verdict.files["deployments.yaml"]


def test_an_own_api_at_an_address_of_the_users_choice_is_not_asked_as_openais() -> None:
    params = "{model: gemini/gemini-2.5-flash, api_base: https://way.example/gemini, api_key: os.environ/K}"
    verdict = imported(model("x", params), owners={"": "a@b.example"}, prices={"x": "1/2"})
    assert finding_places(verdict, NEEDED, "api_base") and not validate_files(verdict.files).deployments


@pytest.mark.parametrize(
    ("name", "variable", "url"),
    [
        ("openai/gpt-4o", "OPENAI_BASE_URL", "https://way.example/v1"),
        ("openai/gpt-4o", "OPENAI_API_BASE", "https://way.example/v1"),
        ("ollama_chat/llama3", "OLLAMA_API_BASE", "https://way.example/v1"),
        ("azure/4o", "AZURE_API_BASE", "https://way.example/openai/v1"),
    ],
)
def test_an_address_that_only_a_variable_has_is_the_one_that_is_asked(name: str, variable: str, url: str) -> None:
    """LiteLLM asks there and not at the provider's own, and nothing of it stands beside the model."""
    base = url.removesuffix("/openai/v1")
    text = f"environment_variables: {{{variable}: {base}}}\n" + model("x", f"{{model: {name}, api_key: os.environ/K}}")
    for verdict in (
        imported(text, owners={"": "a@b.example"}, prices={"x": "1/2"}),
        imported(text.partition("\n")[2], owners={"": "a@b.example"}, prices={"x": "1/2"}, values={variable: base}),
    ):
        (found,) = validate_files(verdict.files).deployments.values()
        assert found.url == url
    text = "environment_variables: {OPENAI_API_BASE: os.environ/PROXY}\n" + model("x", "{model: openai/gpt-4o}")
    asked = [each.todo for each in imported(text).findings if each.state == NEEDED and each.what == "api_base"]
    assert asked == ["Say --set OPENAI_API_BASE=https://HOST."]
    assert str(deployed("{model: openai/gpt-4o}", values={"OPENAI_API_BASE": "https://way.example"}).key) == (
        "env:OPENAI_API_KEY"
    )


def test_what_is_no_model_and_what_nothing_here_speaks_has_no_equal() -> None:
    text = models(router="{model: auto_router/complexity_router}", y="{model: openai/gpt-4o}")
    verdict = imported(text, owners={"": "a@b.example"})
    assert finding_places(verdict, NO_EQUAL, "model") == ["config.yaml:2"] and not finding_places(
        verdict, NO_PRICE, "router"
    )
    for name in ("claude-opus-4-5@20251101", "jamba-1.5-large"):
        there = f"{{model: vertex_ai/{name}, vertex_location: us-east5, vertex_project: acme}}"
        verdict = imported(model("x", there), owners={"": "a@b.example"}, prices={"x": "1/2"})
        assert finding_places(verdict, NO_EQUAL, "model") and not validate_files(verdict.files).deployments


def test_no_key_is_written_where_none_would_be_used() -> None:
    """The client of Vertex AI has the credentials of the machine, and the workspace passes `check`."""
    more = "model: vertex_ai/gemini-2, vertex_location: europe-west1, vertex_project: acme, api_key: "
    for key, state in (("os.environ/VERTEX", CHANGED), (HIDDEN_WORD, SECRET)):
        assert deployed(f"{{{more}{key}}}").key is None
        verdict = imported(model("x", f"{{{more}{key}}}"), owners={"": "a@b.example"}, prices={"x": "1/2"})
        assert finding_places(verdict, state, "api_key") and HIDDEN_WORD not in "".join(verdict.files.values())


@pytest.mark.parametrize(
    ("name", "params", "type_"),
    [
        ("x", "model: voyage/voyage-3.5", "embeddings"),
        ("x", "model: voyage/rerank-2.5", "rerank"),
        ("x", "model: hosted_vllm/BAAI/bge-m3, api_base: 'http://h/v1'", "embeddings"),
        ("x", "model: hosted_vllm/BAAI/bge-reranker-v2-m3, api_base: 'http://h/v1'", "rerank"),
        ("x", "model: azure/prod-ada, base_model: text-embedding-ada-002, api_base: 'https://x.example'", "embeddings"),
        ("text-embedding-3-small", "model: azure/prod, api_base: 'https://x.example'", "embeddings"),
        ("x", "model: hosted_vllm/acme/qwen-watts, api_base: 'http://h/v1'", "chat"),
        ("embedding-helper", "model: openai/gpt-4o", "chat"),
    ],
)
def test_without_a_mode_names_tell_the_type(name: str, params: str, type_: str) -> None:
    verdict = imported(model(name, f"{{{params}}}"), owners={"": "a@b.example"}, prices={name: "1/2"})
    (found,) = validate_files(verdict.files, known_price=known).deployments.values()
    assert found.type == type_ and bool(finding_places(verdict, CHANGED, "model_info.mode")) == (type_ != "chat")


def test_what_may_be_sent_in_is_to_be_declared_and_told() -> None:
    verdict = imported(model("x", "{model: openai/gpt-4o}", "{supports_vision: true, supports_web_search: true}"))
    assert finding_places(verdict, CHANGED, "supports_vision") and finding_places(
        verdict, NO_EQUAL, "supports_web_search"
    )
    assert finding_places(verdict, CHANGED, "accepts") == ["config.yaml:1"]
    priced = imported(
        model("x", "{model: openai/gpt-4o}", "{tiered_pricing: [{range: [0, 32000], input_cost_per_token: 1}]}")
    )
    assert [f.here for f in priced.findings if f.what.endswith("tiered_pricing")] == [
        "a price has one tier for long prompts"
    ]
    assert not finding_places(imported(model("x", "{model: openai/text-embedding-3-small}")), CHANGED, "accepts")


def test_names_of_models_are_split_as_the_proxy_splits_them() -> None:
    assert split_model_name("azure/eu/gpt-4o") == ("azure", "eu/gpt-4o")
    assert split_model_name("gpt-4o") == ("openai", "gpt-4o")
    assert split_model_name("meta-llama/x", "groq") == ("groq", "meta-llama/x")
    assert split_model_name("bedrock/converse/anthropic.claude-v2:1") == ("bedrock", "anthropic.claude-v2:1")
    families = {
        "openai": ("o3-mini", "ft:gpt-4o:acme::1", "text-embedding-3-small", "dall-e-3", "chatgpt-4o-latest"),
        "anthropic": ("claude-3-5-sonnet-20241022",), "vertex_ai": ("gemini-2.5-pro", "text-embedding-005"),
        "bedrock": ("amazon.nova-pro-v1:0", "us.anthropic.claude-sonnet-4-20250514-v1:0", "openai.gpt-oss-20b-1:0"),
        "cohere": ("command-r-plus",),
        "custom_openai": ("mistral-large-latest", "qwen2.5", "gpt-oss-20b", "adapter-7b"),
    }  # fmt: skip
    assert {name: split_model_name(name) for names in families.values() for name in names} == {
        name: (family, name) for family, names in families.items() for name in names
    }


@pytest.mark.parametrize(
    ("law", "regions"),
    [
        ("EU", ("eu-west-1", "europe-west1-b", "europe-west12", "europe-west3", "eu-central-1", "swedencentral",
                "westeurope", "germanywestcentral", "eu-de")),
        ("GB", ("eu-west-2", "europe-west2", "europe-west2-a", "uksouth", "eu-gb")),
        ("CH", ("eu-central-2", "europe-west6", "europe-west6-c", "switzerlandnorth", "eu-zurich-1")),
        ("US", ("us-east-1", "westcentralus", "us")),
        ("JP", ("asia-northeast1", "asia-northeast2", "ap-northeast-3", "japaneast")),
        ("KR", ("asia-northeast3", "ap-northeast-2", "koreacentral")),
        ("UNKNOWN", ("mars", "global", "me-south-1")),
    ],
)  # fmt: skip
def test_the_law_of_a_region_is_that_of_where_it_is(law: str, regions: tuple[str, ...]) -> None:
    assert {region: jurisdiction_of(region) for region in regions} == dict.fromkeys(regions, law)
    assert {region_jurisdiction(f"cloud:{region}") for region in regions} == {None if law == "UNKNOWN" else law}


@pytest.mark.parametrize(
    ("host", "private"),
    [("10.1.2.3", True), ("127.0.0.1", True), ("::1", True), ("fd00::1", True), ("localhost", True), ("vllm", True),
     ("model.internal", True), ("10.example.com", False), ("2606:4700::1111", False), ("8.8.8.8", False)],
)  # fmt: skip
def test_an_address_is_of_a_private_network_or_of_everybodys(host: str, private: bool) -> None:
    assert is_private(host) == private


def test_what_is_worked_on_anywhere_is_at_no_place_that_a_residency_includes() -> None:
    """Bedrock's inference profiles go to whichever of their regions has room, whatever region they are asked in."""
    profile = "bedrock/{}.anthropic.claude-haiku-4-5-20251001-v1:0, aws_region_name: {}"
    asked = {
        "near": ("eu", "eu-central-1"), "far": ("global", "eu-central-1"), "tokyo": ("apac", "ap-northeast-1"),
        "montreal": ("us", "ca-central-1"), "zurich": ("eu", "eu-central-2"), "home": ("jp", "ap-northeast-1"),
    }  # fmt: skip
    text = models(
        **{name: f"{{model: {profile.format(*each)}}}" for name, each in asked.items()},
        own=f"{{model: {profile.format('global', 'eu-central-1')}, "
            "model_id: 'arn:aws:bedrock:eu-central-1:1:application-inference-profile/a1'}",
    )  # fmt: skip
    verdict = imported(text, owners={"": "a@b.example"}, prices=dict.fromkeys([*asked, "own"], "1/5"))
    workspace = validate_files(verdict.files, known_price=known)
    laws = {name: workspace.sites[item.site].jurisdiction for name, item in workspace.deployments.items()}
    assert laws == {
        "near-bedrock": "EU", "far-bedrock": "UNKNOWN", "tokyo-bedrock": "UNKNOWN", "montreal-bedrock": "US",
        "zurich-bedrock": "EU", "home-bedrock": "JP", "own-bedrock": "UNKNOWN",
    }  # fmt: skip
    for name, (_, region) in asked.items():
        assert workspace.deployments[f"{name}-bedrock"].url == f"https://bedrock-runtime.{region}.amazonaws.com"


def test_of_two_prices_the_one_of_the_parameters_holds() -> None:
    """As the proxy registers them."""
    found = deployed(
        "{model: openai/own, input_cost_per_token: 0.000001, output_cost_per_token: 0.000002}",
        "{input_cost_per_token: 0.000005, cache_read_input_token_cost: 0.0000001, output_cost_per_token: null}",
        prices={},
    )
    assert [(p.input, p.output, p.cache_read) for p in found.price] == [(10**12, 2 * 10**12, 10**11)]
    found = deployed("{model: whisper-1, input_cost_per_second: 0.0001}", "{input_cost_per_second: 0.0002}", prices={})
    assert [p.minute for p in found.price] == [6 * 10**9]


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ("model: nebius/openai/gpt-oss-120b", "own/openai-gpt-oss-120b"),
        ("model: together_ai/openai/gpt-oss-20b", "own/openai-gpt-oss-20b"),
        ("model: hosted_vllm/openai/gpt-oss-120b, api_base: 'http://vllm:8000/v1'", "own/openai-gpt-oss-120b"),
        ("model: deepinfra/anthropic/claude-4-sonnet", "own/anthropic-claude-4-sonnet"),
        ("model: openai/gpt-4o, api_base: 'http://way:8000/v1'", "own/gpt-4o"),
        ("model: nebius/acme/own-8b", "nebius/acme/own-8b"),
    ],
)
def test_nobody_is_charged_at_the_price_of_another_provider(params: str, name: str) -> None:
    """The list has a price for `openai/gpt-oss-120b`, whatever stands before it: a quarter of what Nebius takes."""
    assert (
        finding_places(imported(model("x", f"{{{params}}}")), NO_PRICE, "x") and deployed(f"{{{params}}}").model == name
    )
    for region, told in (("us-east-1", False), ("eu-west-2", True)):
        there = imported(model("x", f"{{model: bedrock/amazon.nova-pro-v1:0, aws_region_name: {region}}}"))
        assert bool(finding_places(there, CHANGED, "price")) == told


def test_half_a_price_is_not_told_as_carried_over() -> None:
    text = model("x", "{model: openai/gpt-4o, input_cost_per_token: 0.000001}")
    verdict = imported(text, owners={"": "a@b.example"})
    assert finding_places(verdict, CHANGED, "input_cost_per_token") and not finding_places(
        verdict, CARRIED, "input_cost_per_token"
    )
    (made,) = validate_files(verdict.files, known_price=known).deployments.values()
    assert not made.price and finding_places(verdict, CARRIED, "price"), "that of the list holds"


@pytest.mark.parametrize(
    ("info", "most"),
    [("{max_output_tokens: 65536}", 65_536), ("{max_tokens: 128000}", 16_384), ("{max_tokens: 900}", 900),
     ("{max_input_tokens: 1000, max_output_tokens: 65536}", 65_536), ("{}", 16_384), ("{max_input_tokens: 900}", 900)],
)  # fmt: skip
def test_an_answer_is_as_long_as_the_file_says(info: str, most: int) -> None:
    assert deployed("{model: openai/gpt-4o}", info).max_output == most


@pytest.mark.parametrize("routers", ["[{a: [b]}]", "[]"])
def test_fallbacks_in_two_sections_are_those_that_the_proxy_takes(routers: str) -> None:
    """It takes the list of `router_settings`, unless that is empty, and nothing of the other one beside it."""
    text = models(a="{model: openai/gpt-4o}", b="{model: openai/o3}", c="{model: openai/gpt-4.1}")
    text += f"\nrouter_settings: {{fallbacks: {routers}, default_fallbacks: [c]}}\n"
    text += "litellm_settings: {fallbacks: [{b: [a]}, {a: [c]}]}\n"
    verdict = imported(text, owners={"": "a@b.example"})
    workloads = validate_files(verdict.files, known_price=known).workloads
    taken, told = [list(workloads[name].fallbacks) for name in "ab"], finding_places(verdict, NO_EQUAL, ".fallbacks")
    if routers == "[]":
        assert (taken, told) == ([["c-openai"], ["a-openai"]], [])
    else:
        assert (taken, told) == ([["b-openai"], ["c-openai"]], ["config.yaml:6"])


def test_fallbacks_that_come_to_nothing_are_not_told_as_carried_over() -> None:
    text = models(a="{model: openai/gpt-4o}", b="{model: openai/o3}", e="{model: openai/text-embedding-3-small}")
    text += (
        "\nrouter_settings:\n  model_group_alias: {other: b}\n"
        "  fallbacks: [{a: [b]}, {other: [a]}, {e: [b]}, {nobody: [a]}, {'*': [a]}]\n"
    )
    verdict = imported(text, owners={"": "a@b.example"})
    told = {f.state: f.here for f in verdict.findings if f.what == "router_settings.fallbacks"}
    assert set(told) == {CARRIED, CHANGED, NO_EQUAL, NEEDED}
    assert "e is asked at its own deployments alone" in told[NO_EQUAL] and "nobody, which is no model" in told[NEEDED]
    workloads = validate_files(verdict.files, known_price=known).workloads
    assert {name: list(item.fallbacks) for name, item in workloads.items()} == {
        "a": ["b-openai"], "b": ["a-openai"], "e": [],
    }  # fmt: skip


def test_a_budget_of_nothing_is_none_as_in_the_proxy() -> None:
    text = model("x", "{model: openai/gpt-4o}") + "\nlitellm_settings:\n  max_budget: 0\n"
    verdict = imported(text)
    assert list(validate_files(verdict.files).budgets) == ["x"] and finding_places(verdict, NEEDED, "budget")


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        ("model_list: [", 1, "yaml_syntax"),
        ("model_list:\n  - a\n", 2, "import_form"),
        ("model_list:\n  - model_name: x\n    litellm_params: 5\n", 2, "import_form"),
        ("model_list:\n  - model_name: x\n    litellm_params: {model: gpt-4o, timeout: soon}\n", 3, "import_form"),
        ("model_list:\n  - model_name: x\n    litellm_params: {model: gpt-4o, rpm: 1, rpm: 2}\n", 3, "duplicate_key"),
        (
            "model_list:\n  - &a {model_name: x, litellm_params: {model: gpt-4o}}\nrouter_settings: 1\n",
            3,
            "import_form",
        ),
        ("a: 1\n---\nb: 2\n", 2, "import_form"),
        ("just text", 1, "import_form"),
        ("{}", 1, "import_empty"),
        ("", 1, "import_empty"),
        ("model_list: !!python/object:os.system x", 1, "yaml_tag"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        imported(text)
    assert caught.value.code == code
    where = caught.value.problems[0].where if caught.value.problems else caught.value.where
    assert where is not None and not isinstance(where, str) and abs(where.line - line) <= (code == "import_form")


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(), st.text(max_size=20),
    st.sampled_from(["os.environ/X", "openai/gpt-4o", "https://a.example/v1", "*", "30d", "sk-" + "a" * 30]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["model_name", "litellm_params", "model_info", "model", "api_base", "api_key", "timeout", "mode", "base_model",
     "order", "input_cost_per_token", "output_cost_per_token", "max_tokens", "max_input_tokens", "fallbacks",
     "default_fallbacks", "callbacks", "num_retries", "max_budget", "budget_duration", "model_group_alias", "<<", "rpm",
     "routing_strategy", "region_name", "custom_llm_provider", "surprise"]
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=5), max_leaves=12
)
ENTRIES = st.fixed_dictionaries(
    {
        "model_name": st.text(min_size=1, max_size=30) | ANYTHING,
        "litellm_params": st.fixed_dictionaries(
            {"model": st.sampled_from([f"{p}/m-{i}" for i, p in enumerate(PROVIDERS)]) | st.text(max_size=30)},
            optional={"api_base": ANYTHING, "timeout": ANYTHING, "api_key": ANYTHING, "order": ANYTHING},
        ),
    },
    optional={"model_info": ANYTHING},
)
CONFIGS = st.fixed_dictionaries(
    {"model_list": st.lists(ENTRIES, max_size=4) | ANYTHING},
    optional={
        name: ANYTHING
        for name in ("router_settings", "litellm_settings", "general_settings", "environment_variables", "guardrails")
    },
)


PRICE_KEYS = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost", "input_cost_per_request")
NUMBERS = st.one_of(st.integers(0, 10**6), st.floats(1e-12, 1e-3), st.sampled_from(["0.0000015", "2e-7", 0]))
GROUPS = st.sampled_from(["one", "Two Words", "three/3", "ein-Modell \u00e4", "-", "x" * 90])
GOOD = st.fixed_dictionaries(
    {
        "model_list": st.lists(
            st.fixed_dictionaries(
                {
                    "model_name": GROUPS,
                    "litellm_params": st.fixed_dictionaries(
                        {"model": st.sampled_from([f"{name}/model" for name in PROVIDERS]) | st.just("gpt-4o")},
                        optional={
                            "api_base": st.sampled_from(["https://a.example", "http://10.0.0.1:80/v1", "os.environ/B"]),
                            "api_key": st.sampled_from(["os.environ/KEY", "literal"]),
                            "rpm": NUMBERS, "weight": NUMBERS, "max_budget": NUMBERS,
                            "timeout": NUMBERS, "order": st.integers(0, 9), "max_tokens": st.integers(0, 9**9),
                            "region_name": st.sampled_from(["eu-west-1", "us", "nowhere"]),
                        },
                    ),
                },
                optional={
                    "model_info": st.dictionaries(st.sampled_from([*PRICE_KEYS, "max_input_tokens"]), NUMBERS)
                },
            ),
            min_size=1, max_size=6,
        ),
    },
    optional={
        "router_settings": st.fixed_dictionaries(
            {}, optional={"num_retries": NUMBERS, "timeout": NUMBERS,
                          "fallbacks": st.lists(st.dictionaries(GROUPS, st.lists(GROUPS, max_size=3)), max_size=2)}
        ),
        "litellm_settings": st.fixed_dictionaries(
            {}, optional={"max_budget": NUMBERS, "budget_duration": st.sampled_from(["1d", "30d", "9y"]),
                          "default_fallbacks": st.lists(GROUPS, max_size=2)}
        ),
    },
)  # fmt: skip


@given(GOOD, st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_right_configuration_becomes_a_workspace(config: Any, owner: bool) -> None:
    try:
        verdict = imported(json.dumps(config), owners={"": "a@b.example"} if owner else {})
    except Invalid as error:
        assert "a price in USD" in str(error.problems)  # dollars for one token, by the million
        return
    workspace = validate_files(verdict.files, known_price=known)
    assert len(workspace.deployments) == verdict.deployments
    assert len(workspace.workloads) == verdict.workloads == len({entry["model_name"] for entry in config["model_list"]})
    assert verdict.served <= (verdict.workloads if owner else 0)


@given(CONFIGS, st.booleans())
@settings(max_examples=120, deadline=None)
def test_any_structure_is_a_workspace_or_a_told_error(config: Any, owner: bool) -> None:
    text = json.dumps(config, allow_nan=False, default=str) if _finite(config) else repr(config)
    try:
        verdict = imported(text, owners={"": "a@b.example"} if owner else {})
    except GroundplanError as error:
        assert error.hint and (error.where or error.problems)
        return
    validate_files(verdict.files, known_price=known)
    assert "sk-" + "a" * 30 not in json.dumps(verdict.body()) + "".join(verdict.files.values())


def _finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


@given(st.text(max_size=200))
@settings(max_examples=80, deadline=None)
def test_any_text_is_no_traceback(text: str) -> None:
    with pytest.raises(GroundplanError):
        imported(text)


def test_the_command_writes_a_workspace_that_check_accepts(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(EVERYTHING)
    (tmp_path / "more.yaml").write_text(MORE)
    run = CliRunner()
    to = tmp_path / "workspace"
    arguments = ["import", "litellm", str(tmp_path / "config.yaml"), "--to", str(to), "--owner", "ana@acme.example",
                 "--owner", "far=fay@acme.example", "--budget", "50", "--price", "unpriced=0.4/1.6"]  # fmt: skip
    done = run.invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert body["models"] == 10 and body["without_price"] == 1 and body["without_owner"] == 0
    workspace = validate(to, known_price=known)
    assert str(workspace.budgets["far"].limit) == "50 USD/month"
    again = run.invoke(app, arguments)
    assert isinstance(again.exception, GroundplanError) and again.exception.code == "folder_not_empty"
    told = run.invoke(app, ["import", "litellm", str(tmp_path / "config.yaml")]).output
    assert "10 models, 2 without price, 8 without owner" in told and "Nothing was written" in told


@pytest.mark.parametrize(
    ("options", "code"),
    [(["--owner", "nobody"], "email_syntax"), (["--price", "x=1"], "price_syntax"), (["--price", "x"], "option_form"),
     (["--price", "x=a/b"], "money_syntax"), (["--budget", "much"], "money_syntax")],
)  # fmt: skip
def test_wrong_options_are_told(tmp_path: Path, options: list[str], code: str) -> None:
    (tmp_path / "c.yaml").write_text(model("x", "{model: openai/gpt-4o}"))
    done = CliRunner().invoke(app, ["import", "litellm", str(tmp_path / "c.yaml"), *options])
    assert isinstance(done.exception, Invalid) and done.exception.code == code


def test_included_files_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("include: [../../etc/passwd]\n" + model("x", "{model: openai/gpt-4o}"))
    done = CliRunner().invoke(app, ["import", "litellm", str(tmp_path / "c.yaml")])
    assert isinstance(done.exception, Invalid) and done.exception.code == "import_include"
    (tmp_path / "c.yaml").write_text("include: [none.yaml]\n" + model("x", "{model: openai/gpt-4o}"))
    done = CliRunner().invoke(app, ["import", "litellm", str(tmp_path / "c.yaml")])
    assert isinstance(done.exception, Invalid) and done.exception.code == "import_unreadable"


def test_what_has_one_deployment_is_tried_again_there_whatever_its_type() -> None:
    text = (
        "model_list:\n"
        "  - {model_name: chat, litellm_params: {model: openai/gpt-4.1-mini, api_key: os.environ/K}}\n"
        "  - {model_name: embed, litellm_params: {model: openai/text-embedding-3-small, api_key: os.environ/K}}\n"
        "router_settings: {num_retries: 3}\n"
    )
    workspace = load_files(imported(text, owners={"": "zoe@acme.example"}).files)
    assert {each.reliability.retries.same for each in workspace.workloads.values()} == {3}
    assert collect.workspace_warnings(workspace, TODAY) == ()


def test_an_address_that_names_an_endpoint_is_the_one_above_it() -> None:
    params = "{model: openai/own, api_base: 'https://llm.acme.example/v1/chat/completions', api_key: os.environ/K}"
    verdict = imported(f"model_list:\n  - model_name: own\n    litellm_params: {params}\n", prices={"own": "1/2"})
    assert "url: https://llm.acme.example/v1\n" in "".join(verdict.files.values())


@pytest.mark.parametrize(
    ("params", "asked", "url"),
    [
        ("model: vertex_ai/gemini-2, vertex_project: os.environ/PLACE_P, vertex_location: os.environ/PLACE_L",
         {"PLACE_P": "acme-1", "PLACE_L": "europe-west1"},
         "https://europe-west1-aiplatform.googleapis.com/v1/projects/acme-1/locations/europe-west1"),
        ("model: vertex_ai/gemini-2, vertex_location: europe-west1", {"VERTEXAI_PROJECT": "acme-1"},
         "https://europe-west1-aiplatform.googleapis.com/v1/projects/acme-1/locations/europe-west1"),
        ("model: bedrock/amazon.nova-pro-v1:0, aws_region_name: os.environ/OUR_REGION", {"OUR_REGION": "eu-west-1"},
         "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ("model: bedrock/amazon.nova-pro-v1:0", {"AWS_REGION_NAME": "eu-west-1"},
         "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ("model: azure/gpt-4o, api_base: '${AZURE_BASE}'", {"AZURE_BASE": "https://acme.openai.azure.com"},
         "https://acme.openai.azure.com/openai/v1"),
    ],
)  # fmt: skip
def test_what_lacks_a_part_of_its_address_says_which_variable_to_say(
    params: str, asked: dict[str, str], url: str
) -> None:
    """And nothing is taken from a variable of another name than the file says."""
    others = {name: "us-east-1" for name in ("AWS_REGION", "VERTEXAI_LOCATION") if "OUR_REGION" in params}
    told = imported(model("x", f"{{{params}}}"), prices={"x": "1/2"}, values=others)
    (hint,) = [each.todo for each in told.findings if each.what == "api_base"]
    assert all(f"--set {name}=" in hint for name in asked) and hint.count("--set") == len(asked)
    assert deployed(f"{{{params}}}", values=asked).url == url


def test_a_variable_that_is_put_in_before_is_no_secret_and_the_key_of_its_deployment() -> None:
    text = model("x", "{model: openai/gpt-4o, api_key: '${OUR_KEY}'}")
    verdict = imported(text + "\ngeneral_settings: {master_key: '${MASTER}'}", owners={"": "a@b.example"})
    assert verdict.counts()[SECRET] == 0
    assert validate_files(verdict.files).deployments["x-openai"].key == "env:OUR_KEY"


def test_what_is_told_of_settings_is_what_they_are() -> None:
    text = (
        model("x", "{model: openai/gpt-4o}")
        + """
litellm_settings:
  success_callback: [prometheus, langfuse]
  service_callback: [prometheus_system]
  guardrails: [{prompt_injection: {callbacks: [lakera_prompt_injection], default_on: true}}]
general_settings:
  litellm_jwtauth: {public_key_url: "https://id.example/keys"}
  alert_to_webhook_url: {too_slow: [os.environ/HOOK, "https://hooks.example/services/hunter2"]}
policies: {all: {guardrails: {add: [a]}}}
"""
    )
    verdict = imported(text)
    assert [each.what for each in verdict.findings if each.state == SECRET] == ["general_settings.alert_to_webhook_url"]
    assert finding_places(verdict, CARRIED, "success_callback") and finding_places(
        verdict, NO_EQUAL, "success_callback"
    )
    assert finding_places(verdict, CARRIED, "service_callback") and finding_places(verdict, CHANGED, "policies")
    assert finding_places(verdict, CHANGED, "litellm_settings.guardrails"), "their older place"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("proxy_config: {model_list: [{model_name: x, litellm_params: {model: openai/gpt-4o}}]}", "Helm"),
        ("services: {litellm: {image: x}}\nconfigs: {litellm: {content: 'model_list: []'}}", "Compose"),
        ("{apiVersion: v1, kind: ConfigMap, data: {config.yaml: 'model_list: []'}}", "Kubernetes"),
        ("general_settings: {store_model_in_db: true}", "/model/info"),
    ],
)
def test_a_file_without_models_says_where_they_are(text: str, hint: str) -> None:
    with pytest.raises(Invalid, match="has no model_list") as caught:
        imported(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("value", "state"),
    [
        ("/secrets/gcp.json", CHANGED),
        ("./service account.json", CHANGED),
        ("vertex.json", CHANGED),
        ('\'{"private_key": "a"}\'', SECRET),
        ("/aGk0/b3.x", SECRET),
    ],
)
def test_the_name_of_a_file_with_a_secret_is_none(value: str, state: str) -> None:
    """Nobody is told to replace a key that never stood there."""
    text = f"""\
model_list:
  - model_name: gemini
    litellm_params: {{model: vertex_ai/gemini-2.5-pro, vertex_project: acme, vertex_location: europe-west4,
      vertex_credentials: {value}}}
"""
    [told] = [each for each in imported(text).findings if each.what == "litellm_params.vertex_credentials"]
    assert told.state == state and "credentials of the machine" in told.here
