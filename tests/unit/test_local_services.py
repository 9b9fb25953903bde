"""Which local services a blueprint needs, and that each has a process."""

from __future__ import annotations

from pathlib import Path

from groundplan.api.served import local_services, translates
from groundplan.blueprint.model import Blueprint, Deployment, Rates
from groundplan.cli import processes
from groundplan.core.home import Home


def made(*deployments: Deployment) -> Blueprint:
    return Blueprint(
        number=1, company="acme", separation="solo", sites=[], deployments=list(deployments), sources=[], workloads=[],
        budgets=[], placements=[],
    )  # fmt: skip


def deployment(api: str, url: str = "https://up.acme.example/v1") -> Deployment:
    rates = Rates(input=0, output=0)
    return Deployment(name=api, site="here", model="acme/one", upstream_model="one", url=url, rates=rates, api=api)


def test_other_providers_need_the_service_that_asks_them_and_nobody_else_does() -> None:
    assert local_services(made(deployment("openai"))) == ()
    assert local_services(made(deployment("openai", "local:embedded"))) == ("embedded",)
    for api in ("anthropic", "gemini", "ollama"):
        assert local_services(made(deployment("openai"), deployment(api))) == ("translate",)


def test_anthropics_messages_go_without_it_where_its_library_is_not_installed() -> None:
    assert not translates(made(deployment("openai"), deployment("anthropic")), installed=False)
    assert translates(made(deployment("anthropic")), installed=True)
    assert translates(made(deployment("anthropic"), deployment("gemini")), installed=False)


def test_it_is_a_process_of_the_installation(tmp_path: Path) -> None:
    process = processes.service(Home(tmp_path), "translate")
    assert process is not None and not callable(process.argv)
    assert "groundplan.gateway.translate_app" in process.argv
    assert processes.service(Home(tmp_path), "nobody") is None
