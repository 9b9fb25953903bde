"""Which local services a blueprint needs, and that each has a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.gateway_stack import workload

from groundplan.api.served_blueprint import local_services, needs_translation
from groundplan.blueprint.experiment import DeclaredExperiment
from groundplan.blueprint.guarding import Guardrails
from groundplan.blueprint.model import Blueprint, Deployment, Rates, Routing
from groundplan.blueprint.serving import Cache, Semantic
from groundplan.cli import processes
from groundplan.core.home import Home

KEPT = Cache(seconds=60, max_bytes=1 << 20, scope="person")


def blueprint_of(*deployments: Deployment) -> Blueprint:
    return Blueprint(
        number=1, company="acme", separation="solo", sites=[], deployments=list(deployments), sources=[], workloads=[],
        budgets=[], placements=[],
    )  # fmt: skip


def deployment(api: str, url: str = "https://up.acme.example/v1") -> Deployment:
    rates = Rates(input=0, output=0)
    return Deployment(name=api, site="here", model="acme/one", upstream_model="one", url=url, rates=rates, api=api)


def test_other_providers_need_the_service_that_asks_them_and_nobody_else_does() -> None:
    assert local_services(blueprint_of(deployment("openai"))) == ()
    assert local_services(blueprint_of(deployment("openai", "local:embedded"))) == ("embedded",)
    for api in ("anthropic", "gemini", "ollama"):
        assert local_services(blueprint_of(deployment("openai"), deployment(api))) == ("translate",)


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, False),
        ({"cache": KEPT}, False),
        ({"cache": msgspec.structs.replace(KEPT, semantic=Semantic())}, True),
        ({"routing": Routing()}, False),
        ({"routing": Routing(router="support@1")}, True),
        ({"guardrails": Guardrails(input={"personal_data": "mask"})}, False),
        ({"guardrails": Guardrails(presidio="flag")}, True),
        ({"guardrails": Guardrails(presidio_input="block")}, True),
        ({"experiment": DeclaredExperiment(name="e", type="shadow", candidate="c", judge="j")}, False),
        ({"experiment": DeclaredExperiment(name="e", type="ab", candidate="c")}, False),
        ({"experiment": DeclaredExperiment(name="e", type="shadow", candidate="c")}, True),
    ],
)
def test_the_search_service_is_there_for_whoever_asks_it_also_without_sources(
    more: dict[str, Any], asked: bool
) -> None:
    """A cache by meaning found nothing, ever, where no source was declared."""
    served = msgspec.structs.replace(blueprint_of(deployment("openai")), workloads=[workload("w", ["openai"], **more)])
    assert local_services(served) == (("search",) if asked else ())
    assert local_services(served, likeness=True) == ("search",)


def test_anthropics_messages_go_without_it_where_its_library_is_not_installed() -> None:
    assert not needs_translation(blueprint_of(deployment("openai"), deployment("anthropic")), installed=False)
    assert needs_translation(blueprint_of(deployment("anthropic")), installed=True)
    assert needs_translation(blueprint_of(deployment("anthropic"), deployment("gemini")), installed=False)


def test_it_is_a_process_of_the_installation(tmp_path: Path) -> None:
    process = processes.local_service(Home(tmp_path), "translate")
    assert process is not None and not callable(process.argv)
    assert "groundplan.gateway.translate_app" in process.argv
    assert processes.local_service(Home(tmp_path), "nobody") is None
