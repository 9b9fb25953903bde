"""Compiles deployments with their prices and connections, and sites. Pure; placement decides which are used."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.transport import DIRECT
from groundplan.catalog.well_known import messages_base_url
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.release.compile import context_windows, pricing
from groundplan.release.compile.governance import compile_provider_terms


def compile_deployments(
    workspace: Workspace, today: date, prices: pricing.Prices
) -> tuple[list[bp.Deployment], list[Problem]]:
    """The deployments at declared sites that have a price, and the problems of the others."""
    found: list[bp.Deployment] = []
    problems = list(context_windows.context_problems(workspace, today, prices))
    for item in workspace.deployments.values():
        rates = prices(workspace, item, today)
        if isinstance(rates, Problem):
            problems.append(rates)
        elif item.site in workspace.sites:
            found.append(_compile_deployment(item, rates, workspace))
    return found, problems


_REASONING_MODELS = re.compile(r"(?:openai|azure)/(?:o[1-9]|gpt-(?:[5-9]|[1-9]\d))(?![0-9a-z])")
"""models that refuse every request with `max_tokens`"""


def _compile_deployment(item: doc.DeploymentDoc, rates: bp.Rates, workspace: Workspace) -> bp.Deployment:
    described = workspace.models.get(item.model)
    return bp.Deployment(
        name=item.name,
        site=item.site,
        model=item.model,
        upstream_model=item.name_upstream,
        url=messages_base_url(item.url) if item.api == "anthropic" else item.url,
        key=item.key,
        rates=rates,
        kind=item.type,
        api=item.api,
        serves=sorted(item.serves),
        context_tokens=context_windows.context_tokens(workspace, item),
        max_output_tokens=context_windows.answer_tokens(workspace, item),
        keys=[
            bp.ProviderKey(
                key=each.key,
                requests=[(rate.amount, rate.period) for rate in each.requests],
                tokens=[(rate.amount, rate.period) for rate in each.tokens],
            )
            for each in item.keys
        ],
        accepts=list(item.accepts),
        image_tokens=item.image_tokens or 0,
        audio_tokens=item.audio_tokens or 0,
        audio_seconds=-(-(item.audio or 0) // 1000),
        tokens_per_byte=item.tokens_per_byte,
        input_overhead_tokens=item.input_overhead_tokens,
        cap_field=item.cap_field or ("max_completion_tokens" if _REASONING_MODELS.match(item.model) else "max_tokens"),
        connect_ms=item.timeouts.connect,
        first_token_ms=item.timeouts.first_token,
        first_token_declared="first_token" in item.timeouts.model_fields_set,
        idle_ms=item.timeouts.idle,
        weight=item.weight,
        concurrent=item.limits.concurrent,
        billing_on_cancel=item.billing_on_cancel,
        terms=compile_provider_terms(item),
        purposes=sorted(described.purposes) if described is not None else [],
        **_connection_fields(item, workspace.company),
    )


def _connection_fields(item: doc.DeploymentDoc, company: doc.CompanyDoc) -> dict[str, Any]:
    """TLS, HTTP version and proxy. The proxy is the deployment's own, else the company's; none for a local service."""
    tls = item.tls
    proxy, key = (item.proxy, item.proxy_key) if item.proxy is not None else (company.proxy, company.proxy_key)
    if proxy == DIRECT or item.url.startswith("local:"):
        proxy = key = None
    return {
        "tls": bp.Tls(ca=tls.ca, cert=tls.cert, key=tls.key, server_name=tls.server_name) if tls is not None else None,
        "http": item.http,
        "proxy": proxy,
        "proxy_key": key,
    }


def compile_site(item: doc.SiteDoc) -> bp.Site:
    """A declared site."""
    return bp.Site(
        name=item.name,
        type=item.type,
        jurisdiction=item.jurisdiction,
        title=item.title or item.name,
        holds=item.max_sensitivity,
        purposes=sorted(item.purposes),
    )
