"""`groundplan import litellm`: settings as public configurations have them, and what must not be made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.test_import_litellm import finding_places, imported, known, model
from typer.testing import CliRunner

from groundplan.catalog.check import validate_files
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NEEDED, NO_EQUAL, NO_PRICE, SECRET
from groundplan.cli.main import app
from groundplan.core.errors import Invalid

PLAIN = model("x", "{model: openai/gpt-4o}")


@pytest.mark.parametrize("address", ["http://localhost:PORT/v1", "http://localhost:99999", "http://host:0/v1"])
def test_an_address_with_an_impossible_port_is_asked_for(address: str) -> None:
    """The rest of the file is imported all the same."""
    verdict = imported(model("x", f"{{model: openai/own, api_base: '{address}'}}"), owners={"": "a@b.example"})
    assert "It lacks an address" in verdict.files["deployments.yaml"] and finding_places(verdict, NEEDED, "api_base")
    validate_files(verdict.files)


def test_what_costs_something_in_another_unit_is_not_free() -> None:
    for info in (
        "{input_cost_per_token: 0, output_cost_per_token: 0, output_cost_per_second: 0.07}",
        "{input_cost_per_token: 0, output_cost_per_token: 0, search_context_cost_per_query: {size_low: 0.03}}",
    ):
        verdict = imported(model("x", "{model: own/x, api_base: https://own.example}", info))
        assert finding_places(verdict, NO_PRICE, "x") and "free" not in verdict.files["deployments.yaml"]
        (told,) = (each for each in verdict.findings if each.what == "input_cost_per_token")
        assert (told.state, "0 is not what a call costs" in told.here) == (CHANGED, True)
    zeros = "{input_cost_per_token: 0, output_cost_per_token: 0, output_cost_per_second: '0.0'}"
    verdict = imported(model("x", "{model: own/x, api_base: https://own.example}", zeros))
    assert "price: free" in verdict.files["deployments.yaml"]


@pytest.mark.parametrize("name", ["input_cost_per_image", "output_cost_per_image"])
def test_an_image_has_its_price_under_either_name(name: str) -> None:
    info = f"{{mode: image_generation, {name}: 0.04}}"
    verdict = imported(model("x", "{model: openai/gpt-image-1.5}", info), owners={"": "a@b.example"})
    assert "images: {any: 0.04 USD}" in verdict.files["deployments.yaml"]
    assert finding_places(verdict, CARRIED, name) and validate_files(verdict.files).deployments


def test_what_is_blocked_is_not_called() -> None:
    verdict = imported(model("x", "{model: openai/gpt-4o}", "{blocked: true}"), owners={"": "a@b.example"})
    assert not validate_files(verdict.files).deployments and "blocked" in verdict.files["deployments.yaml"]
    assert finding_places(verdict, CHANGED, "model_info.blocked")
    verdict = imported(model("x", "{model: openai/gpt-4o}", "{blocked: false}"), owners={"": "a@b.example"})
    assert validate_files(verdict.files).deployments


@pytest.mark.parametrize("name", ["vertex_ai/veo-3.1-generate-001", "openai/sora-2", "xai/grok-2-video-generation"])
def test_a_model_of_videos_is_none_that_talks(name: str) -> None:
    verdict = imported(model("x", f"{{model: {name}}}", "{input_cost_per_token: 1e-6, output_cost_per_token: 1e-6}"))
    assert not validate_files(verdict.files).deployments and finding_places(verdict, NO_EQUAL, "model_info.mode")


@pytest.mark.parametrize(
    "params",
    [
        "{model: openai/gpt-4o, extra_headers: {Authorization: Bearer hunter2}}",
        "{model: vertex_ai/gemini-2.5-pro, vertex_credentials: {type: service_account, private_key: hunter2}}",
        "{model: 'openai/*', extra_headers: {x-api-key: hunter2}}",
        "{model: auto_router/x, api_key: hunter2}",
        "{model: os.environ/MODEL, api_key: hunter2}",
    ],
)
def test_a_secret_anywhere_beside_a_model_is_told(params: str) -> None:
    verdict = imported(model("x", params))
    assert len([each for each in verdict.findings if each.state == SECRET]) == 1
    assert "hunter2" not in json.dumps(verdict.body()) + "".join(verdict.files.values())


@pytest.mark.parametrize(
    "more",
    [
        "router_settings: {redis_url: 'redis://:hunter2@cache.example:6379'}",
        "litellm_settings: {cache_params: {url: 'rediss://me:hunter2@cache.example'}}",
        "mcp_servers: {search: {url: 'https://mcp.example/mcp?api_key=hunter2'}}",
    ],
)
def test_a_password_in_an_address_is_a_secret(more: str) -> None:
    verdict = imported(f"{PLAIN}\n{more}\n")
    assert len([each for each in verdict.findings if each.state == SECRET]) == 1
    for plain in (more.replace(":hunter2@", "@").replace("hunter2", ""), more.replace("hunter2", "${WORD}")):
        assert imported(f"{PLAIN}\n{plain}\n").counts()[SECRET] == 0


def test_settings_named_after_keys_and_tokens_are_no_secrets() -> None:
    text = f"""{PLAIN}
general_settings:
  custom_key_generate: custom.generate
  token_rate_limit_type: total
litellm_settings:
  key_alias_pattern: "^team-"
  banned_keywords_list: banned.txt
vector_store_registry:
  - vector_store_name: docs
    litellm_params: {{valkey_host: cache.example, valkey_text_field: text, valkey_password: os.environ/PW}}
"""
    assert imported(text).counts()[SECRET] == 0


def test_a_period_without_an_amount_is_told_as_no_budget() -> None:
    text = f"{PLAIN}\nlitellm_settings: {{max_end_user_budget: 5, budget_duration: 7d}}\n"
    verdict = imported(text + "general_settings: {max_budget: 0}\n")
    assert list(validate_files(verdict.files).budgets) == ["x"]
    assert finding_places(verdict, CARRIED, "litellm_settings.budget_duration")
    assert finding_places(verdict, CARRIED, "general_settings.max_budget")


@pytest.mark.parametrize(
    ("section", "setting", "state", "here"),
    [
        ("general_settings", "trusted_proxy_ranges: [10.0.0.0/8]", CHANGED, "trusted_proxies: of the company"),
        ("general_settings", "user_header_name: x-openwebui-user-email", CHANGED, "groundplan-on-behalf-of"),
        ("general_settings", "coordination_redis: {host: os.environ/HOST}", CHANGED, "no Redis"),
        ("general_settings", "fail_closed_budget_enforcement: true", CARRIED, "always so"),
        ("general_settings", "enable_health_check_routing: true", CHANGED, "health is learned"),
        ("litellm_settings", "block_requests_for_models_without_pricing: true", CARRIED, "without a price"),
        ("litellm_settings", "prometheus_metrics_config: [{group: a}]", CHANGED, "/metrics"),
        ("litellm_settings", "default_end_user_params: {budget_id: a}", NO_EQUAL, "a budget is of"),
        ("litellm_settings", "vector_store_registry: []", NO_EQUAL, "sources"),
        ("litellm_settings", "input_callback: [sentry]", NO_EQUAL, "not sent to other services"),
        ("router_settings", "model_group_affinity_config: {a: [b]}", CHANGED, "prefix"),
    ],
)
def test_settings_of_public_configurations_are_told_by_what_they_are_here(
    section: str, setting: str, state: str, here: str
) -> None:
    verdict = imported(f"{PLAIN}\n{section}: {{{setting}}}\n")
    (found,) = (each for each in verdict.findings if each.what == f"{section}.{setting.partition(':')[0]}")
    assert found.state == state and here in found.here


def test_images_are_not_told_as_carried_over_where_they_are_refused() -> None:
    verdict = imported(model("x", "{model: openai/gpt-4o, supports_images: true}"))
    (found,) = (each for each in verdict.findings if each.what == "litellm_params.supports_images")
    assert (found.state, "accepts: [image]" in found.todo) == (CHANGED, True)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ("{model: openai/deepseek/deepseek-chat, api_base: 'https://openrouter.ai/api/v1'}",
         "openrouter/deepseek/deepseek-chat"),
        ("{model: openai/gemini-2.5-flash, api_base: 'https://generativelanguage.googleapis.com/v1beta/openai/'}",
         "google/gemini-2.5-flash"),
        ("{model: openai/gpt-4o, api_base: 'http://way:8000/v1'}", "own/gpt-4o"),
    ],
)  # fmt: skip
def test_a_provider_takes_its_own_price_by_whatever_client_it_is_asked(params: str, name: str) -> None:
    verdict = imported(model("x", params), prices={"x": "1/2"})
    assert [each.model for each in validate_files(verdict.files, known_price=known).deployments.values()] == [name]
    without = imported(model("x", params))
    assert bool(finding_places(without, NO_PRICE, "x")) == name.startswith("own/")


@pytest.mark.parametrize("name", ["openai//model", "hosted_vllm//models/llama-3.1-8b"])
def test_a_model_may_be_named_by_its_folder_as_vllm_does(name: str) -> None:
    verdict = imported(model("x", f"{{model: {name}, api_base: 'http://vllm:8000/v1'}}"), prices={"x": "free"})
    (found,) = validate_files(verdict.files, known_price=known).deployments.values()
    assert found.upstream_model == name.partition("/")[2] and "//" not in found.model


def test_included_files_are_beside_the_one_that_names_them(tmp_path: Path) -> None:
    """Or, as older versions of the proxy have it, beside the first; each is read once, however it is named."""
    (tmp_path / "models").mkdir()
    for path, names in {
        "c.yaml": "./models/all.yaml, more.yaml", "models/all.yaml": "some.yaml, more.yaml, ../models/some.yaml",
        "models/some.yaml": "../c.yaml", "more.yaml": "",
    }.items():  # fmt: skip
        name = Path(path).stem
        (tmp_path / path).write_text(f"include: [{names}]\n{model(name, '{model: openai/gpt-4o}')}\n")
    done = CliRunner().invoke(app, ["import", "litellm", str(tmp_path / "c.yaml"), "--json"])
    assert json.loads(done.output)["models"] == 4


@pytest.mark.parametrize("name", ["azure/gpt-4.1-prod", "azure/o3-prod", "azure/gpt-5-production"])
def test_a_deployment_for_production_is_no_pro_model(name: str) -> None:
    text = model("x", f"{{model: {name}, api_base: https://own.example, api_key: os.environ/KEY}}")
    verdict = imported(text, owners={"": "a@b.example"}, prices={"x": "1/2"})
    (made,) = validate_files(verdict.files).deployments.values()
    assert "responses" not in made.serves
    dated = text.replace(name, "azure/gpt-5-pro-2025-10-06")
    (made,) = validate_files(
        imported(dated, owners={"": "a@b.example"}, prices={"x": "1/2"}).files
    ).deployments.values()
    assert made.serves == ("responses",)


def test_an_option_for_a_model_that_is_not_in_the_file_is_refused() -> None:
    """It would be dropped in silence, and the workload stay a proposal."""
    for options in ({"owners": {"gpt-4": "a@b.example"}}, {"prices": {"gpt-4": "1/2"}}):
        with pytest.raises(Invalid, match="has no model gpt-4") as caught:
            imported(model("gpt-4o", "{model: openai/gpt-4o}"), **options)
        assert (caught.value.code, caught.value.hint) == ("model_unknown", "Did you mean gpt-4o?")
