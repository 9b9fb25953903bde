"""How many tokens fit a deployment, and an answer of it: as it says, else as its model's document does, else as the
price list, which knows no answers. And how many an image has that it makes.

Where all that fits is reserved, and nobody says how much that is, a bound would be made up: that is a problem. Pure.
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
"""Tokens of an answer where nobody says how many."""
DEFAULT_CONTEXT_TOKENS = 8192
"""Where nobody says it, and nothing is reserved by it."""
_FILE, _REALTIME = "file", "realtime"


def context_tokens(workspace: Workspace, item: doc.DeploymentDoc) -> int:
    return _known_context(workspace, item) or DEFAULT_CONTEXT_TOKENS


def answer_tokens(workspace: Workspace, item: doc.DeploymentDoc) -> int:
    """The most tokens of an answer."""
    described = workspace.models.get(item.model)
    said = described.max_output if item.max_output is None and described is not None else item.max_output
    return DEFAULT_ANSWER_TOKENS if said is None else said


def problems(workspace: Workspace, today: date, prices: Prices = declared_or_listed) -> Iterator[Problem]:
    """Deployments that read files, hold conversations, listen, make images or search without a bound of what that
    costs."""
    for name, item in workspace.deployments.items():
        found = prices(workspace, item, today)
        rates = None if isinstance(found, Problem) else found
        what = _full_context_use(item, rates)
        if what and _known_context(workspace, item) is None:
            yield Problem(
                f"deployment {name} {what} without a bound of what one costs",
                "context_unbounded",
                "Write context: the most tokens of prompt and answer together that its model takes, such as 128k.",
                workspace.where("deployment", name, "accepts" if _FILE in item.accepts else "type"),
            )
        if item.type == "images" and rates is not None and rates.source != FREE.source:
            yield from _image_problems(workspace, item, rates)
        fine = None if rates is None else rates.details
        if fine is not None and fine.search and fine.citations is not None:
            yield Problem(
                f"deployment {name} searches and reads for an answer as much as it likes, each search at a price",
                "search_unbounded",
                "Name a model with a price for each request, such as perplexity/sonar-pro, or write a price of your "
                "own with the most that one costs: price: {input: ..., output: ..., request: 2 USD}.",
                workspace.where("deployment", name, "model"),
            )


def _full_context_use(item: doc.DeploymentDoc, rates: Rates | None) -> str:
    """What it does for which all that fits is reserved; empty: nothing."""
    if _FILE in item.accepts:
        return "accepts files"
    if item.type == _REALTIME:
        return "holds conversations"
    by_tokens = rates is not None and bool(rates.input or rates.output or rates.input_audio)
    return "listens at a price by tokens" if item.type == "transcription" and by_tokens else ""


def _image_problems(workspace: Workspace, item: doc.DeploymentDoc, rates: Rates) -> Iterator[Problem]:
    """Nobody could ask it for an image: no call has a bound."""
    where = workspace.where("deployment", item.name, "type")
    if rates.output and item.image_tokens is None:
        hint = "Write image_tokens: the most tokens that one image has, such as 6240; or in price what one costs, with "
        hint += "input and output 0 USD/Mtok: images: {any: 0.12 USD}."
        told = f"deployment {item.name} makes images at a price by tokens without a bound of what one costs"
        yield Problem(told, "image_unbounded", hint, where)
    elif not rates.output and not rates.images:
        hint = "Write images: {any: 0.12 USD} in price, or price: free."
        yield Problem(f"deployment {item.name} makes images, and its price has none", "image_unbounded", hint, where)


def _known_context(workspace: Workspace, item: doc.DeploymentDoc) -> int | None:
    if item.context is not None:
        return item.context
    described = workspace.models.get(item.model)
    return (described.context if described is not None else None) or price_list.context_window(item.model)
