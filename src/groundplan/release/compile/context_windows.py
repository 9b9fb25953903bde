"""The context length and longest answer of deployments: declared at the deployment, else by its model's document, else
(the context only) by the price list.

Some calls reserve the whole context. If its length is unknown there, their cost has no bound: that is a problem. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from groundplan.blueprint.model import Rates
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.economics.price import FREE
from groundplan.economics.prices import price_list
from groundplan.release.compile.pricing import Prices, declared_or_listed

DEFAULT_ANSWER_TOKENS = 4096
"""tokens of the longest answer where none is declared"""
DEFAULT_CONTEXT_TOKENS = 8192
"""tokens of the context where none is known and no reservation depends on it"""
_FILE, _REALTIME = "file", "realtime"


def context_tokens(workspace: Workspace, item: doc.DeploymentDoc) -> int:
    return _known_context(workspace, item) or DEFAULT_CONTEXT_TOKENS


def answer_tokens(workspace: Workspace, item: doc.DeploymentDoc) -> int:
    """The tokens of the longest answer."""
    described = workspace.models.get(item.model)
    declared = described.max_output if item.max_output is None and described is not None else item.max_output
    return DEFAULT_ANSWER_TOKENS if declared is None else declared


def context_problems(workspace: Workspace, today: date, prices: Prices = declared_or_listed) -> Iterator[Problem]:
    """Problems of deployments that read files, hold conversations, transcribe, make images or search without a bound of
    the cost."""
    for name, item in workspace.deployments.items():
        found = prices(workspace, item, today)
        rates = None if isinstance(found, Problem) else found
        use = _full_context_use(item, rates)
        if use and _known_context(workspace, item) is None:
            yield Problem(
                f"deployment {name} {use} without a bound of what one costs",
                "context_unbounded",
                "Write context: the most tokens of prompt and answer together that its model takes, such as 128k.",
                workspace.where("deployment", name, "accepts" if _FILE in item.accepts else "type"),
            )
        if item.type == "images" and rates is not None and rates.source != FREE.source:
            yield from _image_problems(workspace, item, rates)
        details = None if rates is None else rates.details
        if details is not None and details.search and details.citations is not None:
            yield Problem(
                f"deployment {name} searches and reads for an answer as much as it likes, each search at a price",
                "search_unbounded",
                "Name a model with a price for each request, such as perplexity/sonar-pro, or write a price of your "
                "own with the most that one costs: price: {input: ..., output: ..., request: 2 USD}.",
                workspace.where("deployment", name, "model"),
            )


def _full_context_use(item: doc.DeploymentDoc, rates: Rates | None) -> str:
    """In words, the use for which the whole context is reserved; empty: none."""
    if _FILE in item.accepts:
        return "accepts files"
    if item.type == _REALTIME:
        return "holds conversations"
    by_tokens = rates is not None and bool(rates.input or rates.output or rates.input_audio)
    return "listens at a price by tokens" if item.type == "transcription" and by_tokens else ""


def _image_problems(workspace: Workspace, item: doc.DeploymentDoc, rates: Rates) -> Iterator[Problem]:
    """The problem of a deployment whose images have no bound of cost, so that no call could be admitted."""
    where = workspace.where("deployment", item.name, "type")
    if rates.output and item.image_tokens is None:
        hint = "Write image_tokens: the most tokens that one image has, such as 6240; or in price what one costs, with "
        hint += "input and output 0 USD/Mtok: images: {any: 0.12 USD}."
        message = f"deployment {item.name} makes images at a price by tokens without a bound of what one costs"
        yield Problem(message, "image_unbounded", hint, where)
    elif not rates.output and not rates.images:
        hint = "Write images: {any: 0.12 USD} in price, or price: free."
        yield Problem(f"deployment {item.name} makes images, and its price has none", "image_unbounded", hint, where)


def _known_context(workspace: Workspace, item: doc.DeploymentDoc) -> int | None:
    if item.context is not None:
        return item.context
    described = workspace.models.get(item.model)
    return (described.context if described is not None else None) or price_list.context_window(item.model)
