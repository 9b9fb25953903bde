"""Reads a complete response body of any provider into the ledger's `Usage`: the shape of its report, and how the
provider's counts differ from others of that shape.

The differences between providers are data of the shipped price list, which costs 30 MB: not for gateway workers, which
decode into the same types (`reported`) directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from benchmarks import metering_shapes

from groundplan.core.errors import Invalid, NotFound
from groundplan.economics.prices import provider_usage
from groundplan.ledger.model import Usage

_SHAPES: dict[tuple[str, ...], type[Any]] = {
    ("usage", "prompt_tokens"): provider_usage.ChatUsage,
    ("result.usage", "prompt_tokens"): provider_usage.ChatUsage,
    ("usage", "input_tokens"): provider_usage.ResponsesUsage,
    ("result.usage", "input_tokens"): provider_usage.ResponsesUsage,
    ("usageMetadata", "promptTokenCount"): metering_shapes.GeminiUsage,
    ("usage", "inputTokens"): metering_shapes.ConverseUsage,
    ("usage.billed_units", "input_tokens"): metering_shapes.CohereTokens,
    ("meta.billed_units", "input_tokens"): metering_shapes.CohereTokens,
    ("usage", "tokens.input_tokens"): metering_shapes.CohereUsage,
    ("response.usage", "input_tokens"): provider_usage.RealtimeUsage,
}
"""(path of the report in a body, name of its first count) -> its shape"""
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
"""Name of a class in price lists -> its field of `Usage` or `FineDetails`."""


@dataclass(frozen=True, slots=True)
class UsageForm:
    """How one API flavour of a provider reports usage."""

    root: tuple[str, ...]
    shape: type[Any]
    classes: frozenset[str]
    """Classes it counts, by their names in price lists; other counts of a body are ignored."""
    outside_totals: tuple[tuple[str, str], ...]
    """(class, total) of classes that its totals do not include: they are added to the total."""
    moved_classes: tuple[tuple[tuple[str, ...], str], ...]
    """(path, class) of classes that are at another path than in the shape."""


def read_usage(body: Any, provider: str, flavor: str = "default") -> Usage:
    """The usage that a body reports. Raises `NotFound` (`flavor_unknown`) and `Invalid` (`usage_unreadable`)."""
    form = usage_form(provider, flavor)
    report_body = _value_at(body, form.root)
    if not isinstance(report_body, dict):
        raise _unreadable(provider, flavor, f"it has nothing at {'.'.join(form.root)}")
    try:
        report = msgspec.convert(report_body, form.shape, strict=False)
        usage = report.usage()
        if usage is None and form.shape is provider_usage.ChatUsage:
            usage = report.input_usage()
    except msgspec.ValidationError as error:
        raise _unreadable(provider, flavor, str(error)) from error
    if usage is None:
        raise _unreadable(provider, flavor, "a count is missing, or cannot be true")
    counts = count_by_class(usage)
    for path, name in form.moved_classes:
        counts.pop(name, None)
        if isinstance(value := _value_at(report_body, path), int | float):
            counts[name] = int(value)
    if form.shape is provider_usage.ChatUsage:
        counts["output_tokens"] = int(
            report_body.get("completion_tokens") or 0
        )  # classes outside the total are added below
    for name, total in form.outside_totals:
        counts[total] = counts.get(total, 0) + counts.get(name, 0)
    return usage_from_classes({name: count for name, count in counts.items() if name in form.classes})


def count_by_class(usage: Usage) -> dict[str, int]:
    """Every count that is not zero, by the name of its class in price lists."""
    counts = {name: getattr(usage, field) for name, field in _LEDGER_NAMES.items()}
    if usage.details is not None:
        counts |= {name: getattr(usage.details, field, 0) for name, field in _DETAIL_NAMES.items()}
    return {name: count for name, count in counts.items() if count}


def usage_from_classes(counts_by_class: Mapping[str, int]) -> Usage:
    """The inverse of `count_by_class`; counts of unknown classes are dropped."""
    details = {_DETAIL_NAMES[name]: count for name, count in counts_by_class.items() if name in _DETAIL_NAMES}
    counts: dict[str, Any] = {
        _LEDGER_NAMES[name]: count for name, count in counts_by_class.items() if name in _LEDGER_NAMES
    }
    return Usage(**counts, details=metering_shapes.fine_details(**details))


@lru_cache(maxsize=512)
def usage_form(provider: str, flavor: str) -> UsageForm:
    """The usage form of that provider's API. Raises `NotFound` (`flavor_unknown`)."""
    # 30 MB, which gateway workers do not need
    from genai_prices import data_snapshot  # noqa: PLC0415

    providers = {extractor.id: extractor for extractor in data_snapshot.get_snapshot().providers}
    extractors = providers[provider].extractors or [] if provider in providers else []
    for extractor in extractors:
        if extractor.api_flavor == flavor:
            return _build_form(provider, extractor)
    raise NotFound(
        f"the price list knows no API '{flavor}' of the provider '{provider}'",
        code="flavor_unknown",
        hint=f"It knows {', '.join(sorted(extractor.api_flavor for extractor in extractors)) or 'no API of it'}.",
    )


def _build_form(provider: str, extractor: Any) -> UsageForm:
    root = _path_steps(extractor.root)
    mappings = [(_path_steps(each.path), str(each.dest)) for each in extractor.mappings]
    shape = _SHAPES.get((".".join(root), ".".join(mappings[0][0])))
    paths = {path for path, _ in mappings}
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
    outside_totals = [
        (name, total)
        for total in ("input_tokens", "output_tokens")
        for path, name in mappings
        if name != total and (path, total) in mappings and shape is provider_usage.ChatUsage
    ]
    return UsageForm(
        root=root,
        shape=shape,
        classes=frozenset(name for _, name in mappings),
        outside_totals=tuple(outside_totals),
        moved_classes=tuple((p, name) for p, name in mappings if _is_moved(shape, p) and name in CLASSES),
    )


_CHAT_FIELDS = frozenset({"prompt_tokens_details", "completion_tokens_details", "prompt_tokens", "completion_tokens"})


def _is_moved(shape: type[Any], path: tuple[str, ...]) -> bool:
    return shape is provider_usage.ChatUsage and path[0] not in _CHAT_FIELDS


def _path_steps(path: Any) -> tuple[str, ...]:
    return (path,) if isinstance(path, str) else tuple(step if isinstance(step, str) else "[]" for step in path)


def _value_at(body: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        body = body.get(step) if isinstance(body, dict) else None
    return body


def _unreadable(provider: str, flavor: str, why: str) -> Invalid:
    return Invalid(
        f"the usage of this body of {provider} ({flavor}) cannot be read: {why}",
        code="usage_unreadable",
        hint="Pass a whole response body, and the provider and API that it is of.",
    )
