"""How many tokens fit a deployment is known, or nothing is reserved by it; the price of a long prompt holds anyway."""

from __future__ import annotations

from datetime import date

import pytest
from tests.unit.test_catalog_transport import START

from groundplan.blueprint.model import Deployment
from groundplan.catalog.check import validate_files
from groundplan.economics.price import cost
from groundplan.ledger.model import Usage
from groundplan.release.compile.context_windows import context_problems
from groundplan.release.compile.places import compile_deployments
from groundplan.release.compile.pricing import declared_or_listed

URL = "url: https://h.example/v1\n"
LISTED = "openai/gpt-realtime"


def compiled(lines: str, model: str = "acme/one", described: str = "") -> tuple[Deployment, list[str]]:
    text = START.format(company="").replace("acme/one", model) + URL + lines
    text += f"---\nkind: model\nname: {model}\n{described}" if described else ""
    found, problems = compile_deployments(validate_files({"a.yaml": text}), date(2026, 11, 1), declared_or_listed)
    return found[0], [problem.code for problem in problems]


def test_it_is_the_deployments_then_the_models_then_the_lists() -> None:
    assert compiled("context: 20k\n", LISTED, "context: 10k\n")[0].context_tokens == 20_000
    assert compiled("", LISTED, "context: 10k\n")[0].context_tokens == 10_000
    assert compiled("", LISTED)[0].context_tokens == 32_000
    assert compiled("") == (compiled("context: 8192\n")[0], [])


def test_the_longest_answer_is_the_deployments_then_the_models() -> None:
    described = "max_output: 32k\n"
    assert compiled("max_output: 2k\n", described=described)[0].max_output_tokens == 2000
    assert compiled("", described=described)[0].max_output_tokens == 32_000
    assert compiled("")[0].max_output_tokens == 4096


@pytest.mark.parametrize("lines", ["accepts: [file]\n", "type: realtime\n"])
def test_what_reserves_all_of_it_says_how_much_that_is(lines: str) -> None:
    assert compiled(lines)[1] == ["context_unbounded"]
    assert compiled(lines + "context: 32k\n")[1] == compiled(lines, LISTED)[1] == []


def typed(kind: str, price: str, more: str = "") -> list[str]:
    """What is told of a deployment of a type with a price."""
    text = START.format(company="").replace("price: free\n", "") + f"{URL}type: {kind}\nprice: {price}\n{more}"
    return [told.code for told in context_problems(validate_files({"a.yaml": text}), date(2026, 11, 1))]


def test_nobody_declares_images_that_no_call_can_ask_for() -> None:
    tokens, nothing = "{input: 5 USD/Mtok, output: 40 USD/Mtok}", "{input: 5 USD/Mtok, output: 0 USD/Mtok}"
    assert typed("images", tokens) == typed("images", nothing) == ["image_unbounded"]
    each = "{input: 0 USD/Mtok, output: 0 USD/Mtok, images: {any: 0.12 USD}}"
    assert typed("images", tokens, "image_tokens: 6240\n") == typed("images", each) == typed("images", "free") == []
    assert typed("chat", tokens) == []


def test_who_listens_at_a_price_by_tokens_says_how_many_fit() -> None:
    tokens, minutes = (
        "{input: 6 USD/Mtok, output: 10 USD/Mtok}",
        "{input: 0 USD/Mtok, output: 0 USD/Mtok, minute: 1 USD}",
    )
    assert typed("transcription", tokens) == ["context_unbounded"]
    assert typed("transcription", tokens, "context: 16k\n") == typed("transcription", minutes, "audio: 30m\n") == []


def test_who_searches_as_much_as_it_likes_has_a_price_that_bounds_it() -> None:
    text = START.format(company="").replace("acme/one", "perplexity/sonar-deep-research").replace("price: free\n", "")
    bounded = "price: {input: 2 USD/Mtok, output: 8 USD/Mtok, request: 2 USD}\n"
    for price, codes in (("", ["search_unbounded"]), (bounded, [])):
        found = context_problems(validate_files({"a.yaml": text + URL + price}), date(2026, 11, 1))
        assert [told.code for told in found] == codes


def test_a_prompt_above_the_lists_threshold_costs_what_the_provider_bills() -> None:
    """Whatever context was declared, or was not."""
    for lines in ("", "context: 8k\n"):
        text = START.format(company="").replace("acme/one", "anthropic/claude-sonnet-4-5").replace("price: free\n", "")
        found, problems = compile_deployments(
            validate_files({"a.yaml": text + URL + lines}), date(2026, 11, 1), declared_or_listed
        )
        assert not problems and cost(found[0].rates, Usage(input=250_000)) == 250_000 * 6 * 10**6
