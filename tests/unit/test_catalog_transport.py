"""How a deployment is reached: what may be declared together, and what the gateway reads of it."""

from __future__ import annotations

from datetime import date

import pytest

from groundplan.blueprint.model import Deployment, Rates, Tls
from groundplan.catalog.check import validate_files
from groundplan.catalog.imports.providers import supported_apis
from groundplan.core.errors import Invalid
from groundplan.gateway.upstream.providers import EMBEDDING_APIS
from groundplan.release.compile.places import compile_deployments

START = """kind: company
name: acme
format: 1
separation: solo
{company}
---
kind: site
name: here
type: cloud
jurisdiction: EU
---
kind: deployment
name: one
site: here
model: acme/one
price: free
"""


def compiled(deployment: str, company: str = "") -> Deployment:
    workspace = validate_files({"a.yaml": START.format(company=company) + deployment})
    found, problems = compile_deployments(workspace, date(2026, 1, 1), lambda *_: Rates(input=0, output=0))
    assert not problems
    return found[0]


def codes(deployment: str, company: str = "") -> set[str]:
    with pytest.raises(Invalid) as caught:
        compiled(deployment, company)
    return {problem.code for problem in caught.value.problems}


def test_everything_about_a_way_reaches_the_gateway() -> None:
    made = compiled(
        "url: https://h.example/v1\nhttp: 1\nproxy: http://p.example:3129\nproxy_key: env:PROXY\n"
        "tls: {ca: file:/ca.pem, cert: file:/c.pem, key: file:/k.pem, server_name: in.example}\n"
    )
    assert made.tls == Tls(ca="file:/ca.pem", cert="file:/c.pem", key="file:/k.pem", server_name="in.example")
    assert (made.http, made.proxy, made.proxy_key) == (1, "http://p.example:3129", "env:PROXY")
    assert compiled("url: https://h.example/v1\nhttp: 2\n").http == 2
    plain = compiled("url: https://h.example/v1\n")
    assert (plain.tls, plain.http, plain.proxy, plain.proxy_key) == (None, 1, None, None)


def test_the_companys_proxy_holds_where_a_deployment_says_nothing_and_is_not_local() -> None:
    company = "proxy: http://p.example:3128\nproxy_key: file:/proxy.key"
    assert compiled("url: https://h.example/v1\n", company).proxy == "http://p.example:3128"
    assert compiled("url: https://h.example/v1\n", company).proxy_key == "file:/proxy.key"
    own = compiled("url: https://h.example/v1\nproxy: http://q.example:1\n", company)
    assert (own.proxy, own.proxy_key) == ("http://q.example:1", None), "credentials go to their own proxy only"
    assert compiled("url: https://h.example/v1\nproxy: direct\n", company).proxy is None
    assert compiled("url: local:embedded\n", company).proxy is None


@pytest.mark.parametrize(
    ("deployment", "code"),
    [
        ("url: https://user:pass@h.example/v1\n", "invalid_value"),
        ("url: https://h.example/v1\nproxy: http://user:pass@p.example:1\n", "invalid_value"),
        ("url: https://h.example/v1\nproxy: socks5://p.example:1\n", "invalid_value"),
        ("url: https://h.example/v1\nproxy: http://p.example:1/path\n", "invalid_value"),
        ("url: https://h.example/v1\nproxy: http://p.example:99999\n", "invalid_value"),
        ("url: https://h.example/v1\nproxy_key: env:PROXY\n", "proxy_missing"),
        ("url: https://h.example/v1/chat/completions\n", "url_endpoint"),
        ("url: https://h.example/v1/responses/\n", "url_endpoint"),
        ("url: https://h.example/v1/messages\napi: anthropic\n", "url_endpoint"),
        ("url: http://h.example/v1\ntls: {ca: file:/ca.pem}\n", "tls_without_https"),
        ("url: https://h.example/v1\ntls: {key: file:/k.pem}\n", "tls_key_alone"),
        ("url: https://h.example/v1\nhttp: 2\ntls: {server_name: in.example}\n", "tls_server_name"),
        (
            "url: https://h.example/v1\nproxy: https://p.example:1\ntls: {server_name: in.example}\n",
            "tls_server_name",
        ),
        ("url: https://h.example/v1\ntype: transcription\naudio: 10s\nhttp: 2\n", "upload_way"),
        ("url: https://h.example/v1\ntype: transcription\naudio: 10s\nproxy: https://p.example:1\n", "upload_way"),
        ("url: https://h.example/v1\nserves: [batches]\nhttp: 2\n", "batches_unserved"),
        ("url: https://h.example/v1\nserves: [batches]\nproxy: https://p.example:1\n", "batches_unserved"),
        ("url: https://h.example/v1\ntype: realtime\nhttp: 2\n", "realtime_way"),
        ("url: https://h.example/v1\ntype: realtime\nproxy: https://p.example:1\n", "realtime_way"),
        ("url: local:embedded\nhttp: 2\n", "local_direct"),
        ("url: local:embedded\nproxy: http://p.example:1\n", "local_direct"),
    ],
)
def test_what_does_not_fit_is_told_at_check(deployment: str, code: str) -> None:
    assert code in codes(deployment)


def test_a_conversation_passes_a_proxy_of_the_company_that_is_reached_by_http() -> None:
    talker, proxy = "url: https://h.example/v1\ntype: realtime\ncontext: 32k\n", "proxy: http://p.example:1\n"
    assert compiled(talker, proxy).proxy == "http://p.example:1"
    assert compiled(f"{talker}proxy: direct\n", proxy).proxy is None
    assert "realtime_way" in codes(talker, "proxy: https://p.example:1\n")


@pytest.mark.parametrize("tls", ["{ca: env:CA}", "{ca: /ca.pem}", "{verify: false}", "{server_name: 'a b'}"])
def test_tls_has_no_way_around_verification_and_files_only_by_reference(tls: str) -> None:
    with pytest.raises(Invalid):
        compiled(f"url: https://h.example/v1\ntls: {tls}\n")


def test_credentials_in_a_url_are_not_repeated() -> None:
    with pytest.raises(Invalid) as caught:
        compiled("url: https://h.example/v1\nproxy: http://user:hunter2@p.example:1\n")
    assert all("hunter2" not in str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("serves: [responses]", "serves"),
        ("serves: [batches]", "batches"),
        ("context: 32k\naccepts: [file]", "accepts"),
        ("http: 2", "http"),
        ("proxy: http://proxy.acme.example:3128", "proxy"),
        ("tls: {ca: file:/etc/ca.pem}", "tls"),
    ],
)
def test_what_a_providers_own_client_does_not_know_is_told(more: str, field: str) -> None:
    gemini = f"url: https://up.acme.example\napi: gemini\n{more}\n"
    assert "api_not_openai" in codes(gemini)
    assert compiled(gemini.replace("gemini", "openai")).api == "openai"
    anthropic = gemini.replace("gemini", "anthropic")
    if field == "serves":
        assert "api_not_openai" in codes(anthropic)
    else:
        assert compiled(anthropic).api == "anthropic"


def test_a_companys_proxy_is_never_passed_by() -> None:
    company = "proxy: http://p.example:3128"
    gemini = "url: https://up.acme.example\napi: gemini\n"
    assert codes(gemini, company) == {"proxy_passed_by"}
    with pytest.raises(Invalid) as caught:
        compiled(gemini, company)
    (problem,) = caught.value.problems
    assert problem.where is not None and (problem.where.file, problem.where.line) == ("a.yaml", 18)
    assert compiled(f"{gemini}proxy: direct\n", company).proxy is None
    anthropic = compiled(gemini.replace("gemini", "anthropic"), company)
    assert anthropic.proxy == "http://p.example:3128", "chat to Anthropic goes through it"


VERTEX = "url: https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1\napi: vertexai\n"


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("anthropic/claude-sonnet-4-5", ""),
        ("acme/one", "upstream_model: claude-opus-4-5@20251101\n"),
        ("ai21/jamba-1.5-large", ""),
    ],
)
def test_a_model_with_an_api_of_its_own_at_vertex_ai_is_refused_where_it_is_declared(model: str, more: str) -> None:
    text = START.replace("acme/one", model).format(company="") + VERTEX + more
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": text})
    (problem,) = caught.value.problems
    declared = "upstream_model:" if more else "model:"
    line = next(number for number, each in enumerate(text.splitlines(), 1) if each.startswith(declared))
    assert problem.code == "vertex_model" and "api: anthropic" in problem.hint
    assert problem.where is not None and (problem.where.file, problem.where.line) == ("a.yaml", line)


def test_models_of_other_makers_that_are_spoken_to_at_vertex_ai_are_declared_as_they_are() -> None:
    for model in ("gemini-2.5-flash", "mistral-small-2503", "meta/llama-4-scout"):
        assert compiled(f"{VERTEX}upstream_model: {model}\n").upstream_model == model


@pytest.mark.parametrize("more", ["key: env:VERTEX\n", "keys: [{key: env:VERTEX}]\n"])
def test_a_key_that_nobody_would_use_is_told(more: str) -> None:
    assert codes(VERTEX + more) == {"key_unused"}


@pytest.mark.parametrize("api", sorted(supported_apis()))
def test_embeddings_are_declared_only_where_they_can_be_asked_for(api: str) -> None:
    url = VERTEX if api == "vertexai" else f"url: https://up.acme.example\napi: {api}\n"
    if api in EMBEDDING_APIS:
        assert compiled(f"{url}type: embeddings\n").kind == "embeddings"
    else:
        assert codes(f"{url}type: embeddings\n") == {"api_not_openai"}


def test_a_local_service_speaks_openais_api() -> None:
    assert "api_not_openai" in codes("url: local:embedded\napi: mistral\n")


def test_what_is_declared_of_a_tokenizer_reaches_the_gateway() -> None:
    made = compiled("url: https://h.example/v1\ntokens_per_byte: 1.5\ninput_overhead_tokens: 40\n")
    assert (made.tokens_per_byte, made.input_overhead_tokens) == (1.5, 40)
    plain = compiled("url: https://h.example/v1\n")
    assert (plain.tokens_per_byte, plain.input_overhead_tokens) == (1.0, 16)
    assert compiled("url: https://h.example/v1\ntokens_per_byte: 3\n").tokens_per_byte == 3.0


@pytest.mark.parametrize(
    ("model", "field"),
    [
        *((f"openai/{name}", "max_completion_tokens") for name in ("gpt-5", "gpt-5.1-mini", "o3", "o1-2024-12-17")),
        ("azure/gpt-5-nano", "max_completion_tokens"),
        *((f"openai/{name}", "max_tokens") for name in ("gpt-4.1-mini", "gpt-oss-20b", "omni", "o1x", "gpt-50x")),
        ("acme/gpt-5", "max_tokens"),
    ],
)
def test_an_answer_is_capped_by_the_field_that_its_model_takes(model: str, field: str) -> None:
    way = "url: https://h.example/v1\n"
    named = START.replace("acme/one", model).format(company="") + way
    workspace = validate_files({"a.yaml": named}, known_price=lambda _: True)
    (found,), _ = compile_deployments(workspace, date(2026, 1, 1), lambda *_: Rates(input=0, output=0))
    assert found.cap_field == field
    assert compiled(f"{way}cap_field: max_completion_tokens\n").cap_field == "max_completion_tokens"


@pytest.mark.parametrize(
    "line",
    [
        *(
            f"tokens_per_byte: {bad}"
            for bad in (0, -1, ".nan", ".inf", "1e300", 101, "0.0000001", "many", "true", "1%")
        ),
        *(f"input_overhead_tokens: {bad}" for bad in (0, -1, ".nan", 1.5, "1M", 10**30, "few")),
    ],
)
def test_a_tokenizer_that_cannot_be_is_refused_at_its_line(line: str) -> None:
    with pytest.raises(Invalid) as caught:
        compiled(f"url: https://h.example/v1\n{line}\n")
    (problem,) = caught.value.problems
    assert problem.where is not None and (problem.where.file, problem.where.line) == ("a.yaml", 18), problem
