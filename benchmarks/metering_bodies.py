"""A whole response body of any provider, read into the ledger's `Usage`: which shape it has, and what its provider
counts otherwise than others of that shape.

The differences between providers are data of the shipped price list, which costs 30 MB: not for gateway workers, which
decode into the same types (`reported`) directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from groundplan.core.errors import Invalid, NotFound
from groundplan.economics.prices import provider_usage
from groundplan.ledger.model import Usage, UsageDetails

_SHAPES: dict[tuple[str, ...], type[Any]] = {
    ("usage", "prompt_tokens"): provider_usage.ChatUsage,
    ("result.usage", "prompt_tokens"): provider_usage.ChatUsage,
    ("usage", "input_tokens"): provider_usage.ResponsesUsage,
    ("result.usage", "input_tokens"): provider_usage.ResponsesUsage,
    ("usageMetadata", "promptTokenCount"): provider_usage.GeminiUsage,
    ("usage", "inputTokens"): provider_usage.ConverseUsage,
    ("usage.billed_units", "input_tokens"): provider_usage.CohereTokens,
    ("meta.billed_units", "input_tokens"): provider_usage.CohereTokens,
    ("usage", "tokens.input_tokens"): provider_usage.CohereUsage,
    ("response.usage", "input_tokens"): provider_usage.RealtimeUsage,
}
"""(where the report is in a body, what its first count is called) -> its shape"""
_LEDGER_NAMES = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "output_reasoning_tokens": "reasoning",
    "input_audio_tokens": "input_audio",
    "output_audio_tokens": "output_audio",
}
_DETAIL_NAMES = {
    "cache_write_5m_tokens": "cache_write_5m",
    "cache_write_1h_tokens": "cache_write_1h",
    **{f"cache_{kind}_read_tokens": f"cache_read_{kind}" for kind in ("text", "audio", "image", "video")},
    **{f"input_{kind}_tokens": f"input_{kind}" for kind in ("text", "image", "video")},
    **{f"output_{kind}_tokens": f"output_{kind}" for kind in ("text", "image", "video")},
    **{f"input_{kind}_tool_tokens": f"input_{kind}_tools" for kind in ("text", "audio", "image", "video")},
    "input_tool_tokens": "input_tools",
    "output_citation_tokens": "citations",
    "web_searches": "searches",
}
CLASSES: Mapping[str, str] = {**_LEDGER_NAMES, **_DETAIL_NAMES}
"""A class as price lists call it -> its field of `Usage` or `UsageDetails`."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a provider's API of one flavour reports."""

    root: tuple[str, ...]
    shape: type[Any]
    classes: frozenset[str]
    """What it counts, as price lists call it; whatever else a body says belongs to no class of its own."""
    beside: tuple[tuple[str, str], ...]
    """(class, total) of classes that its totals leave out: they are added."""
    moved: tuple[tuple[tuple[str, ...], str], ...]
    """(path, class) of classes that are elsewhere than the shape has them."""


def read(body: Any, provider: str, flavor: str = "default") -> Usage:
    """What a body reports. Raises `NotFound` (`flavor_unknown`) and `Invalid` (`usage_unreadable`)."""
    form = form_of(provider, flavor)
    found = _at(body, form.root)
    if not isinstance(found, dict):
        raise _unreadable(provider, flavor, f"it has nothing at {'.'.join(form.root)}")
    try:
        report = msgspec.convert(found, form.shape, strict=False)
        usage = report.usage()
        if usage is None and form.shape is provider_usage.ChatUsage:
            usage = report.input_usage()
    except msgspec.ValidationError as error:
        raise _unreadable(provider, flavor, str(error)) from error
    if usage is None:
        raise _unreadable(provider, flavor, "a count is missing, or cannot be true")
    counted = classes(usage)
    for path, name in form.moved:
        counted.pop(name, None)
        if isinstance(value := _at(found, path), int | float):
            counted[name] = int(value)
    if form.shape is provider_usage.ChatUsage:
        counted["output_tokens"] = int(found.get("completion_tokens") or 0)  # what is beside it is added below
    for name, total in form.beside:
        counted[total] = counted.get(total, 0) + counted.get(name, 0)
    return usage_of({name: count for name, count in counted.items() if name in form.classes})


def classes(usage: Usage) -> dict[str, int]:
    """Every count that is not zero, by the name that price lists have for its class."""
    found = {name: getattr(usage, field) for name, field in _LEDGER_NAMES.items()}
    if usage.details is not None:
        found |= {name: getattr(usage.details, field) for name, field in _DETAIL_NAMES.items()}
    return {name: count for name, count in found.items() if count}


def usage_of(counted: Mapping[str, int]) -> Usage:
    """The opposite of `classes`; counts of unknown classes are left out."""
    fine = {_DETAIL_NAMES[name]: count for name, count in counted.items() if name in _DETAIL_NAMES and count}
    counts: dict[str, Any] = {_LEDGER_NAMES[name]: count for name, count in counted.items() if name in _LEDGER_NAMES}
    return Usage(
        **counts,
        details=UsageDetails(**fine) if fine else None,
    )


@lru_cache(maxsize=512)
def form_of(provider: str, flavor: str) -> Form:
    """How that provider's API reports. Raises `NotFound` (`flavor_unknown`)."""
    # 30 MB that gateway workers do without
    from genai_prices import data_snapshot  # noqa: PLC0415

    providers = {each.id: each for each in data_snapshot.get_snapshot().providers}
    known = providers[provider].extractors or [] if provider in providers else []
    for extractor in known:
        if extractor.api_flavor == flavor:
            return _form(provider, extractor)
    raise NotFound(
        f"the price list knows no API '{flavor}' of the provider '{provider}'",
        code="flavor_unknown",
        hint=f"It knows {', '.join(sorted(each.api_flavor for each in known)) or 'no API of it'}.",
    )


def _form(provider: str, extractor: Any) -> Form:
    root = _path(extractor.root)
    counted = [(_path(each.path), str(each.dest)) for each in extractor.mappings]
    shape = _SHAPES.get((".".join(root), ".".join(counted[0][0])))
    paths = {path for path, _ in counted}
    if ("cache_creation_input_tokens",) in paths or ("cache_read_input_tokens",) in paths:
        shape = provider_usage.MessagesUsage if shape is provider_usage.ResponsesUsage else shape
    if ("input_token_details", "text_tokens") in paths:
        shape = provider_usage.RealtimeUsage
    if ("output_tokens_details", "image_tokens") in paths:
        shape = provider_usage.ImagesUsage
    if shape is None:
        raise NotFound(
            f"usage of {provider} in the form '{extractor.api_flavor}' is not known",
            code="flavor_unknown",
            hint="Tokens of chat, responses, messages, embeddings, images and realtime are.",
        )
    beside = [
        (name, total)
        for total in ("input_tokens", "output_tokens")
        for path, name in counted
        if name != total and (path, total) in counted and shape is provider_usage.ChatUsage
    ]
    return Form(
        root=root,
        shape=shape,
        classes=frozenset(name for _, name in counted),
        beside=tuple(beside),
        moved=tuple((p, name) for p, name in counted if _elsewhere(shape, p) and name in CLASSES),
    )


_USUAL = frozenset({"prompt_tokens_details", "completion_tokens_details", "prompt_tokens", "completion_tokens"})


def _elsewhere(shape: type[Any], path: tuple[str, ...]) -> bool:
    return shape is provider_usage.ChatUsage and path[0] not in _USUAL


def _path(path: Any) -> tuple[str, ...]:
    return (path,) if isinstance(path, str) else tuple(step if isinstance(step, str) else "[]" for step in path)


def _at(body: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        body = body.get(step) if isinstance(body, dict) else None
    return body


def _unreadable(provider: str, flavor: str, why: str) -> Invalid:
    return Invalid(
        f"the usage of this body of {provider} ({flavor}) cannot be read: {why}",
        code="usage_unreadable",
        hint="Pass a whole response body, and the provider and API that it is of.",
    )
