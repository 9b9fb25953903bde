"""Resolves the name of a model on a bill to a declared model. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOT_LETTERS = re.compile(r"[^a-z0-9]+")
_MAKER_PREFIX = re.compile(
    r"^(?:[a-z-]+\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot|nvidia|openai|qwen|writer)"
    r"\.(?=[a-z])"
)
"""The maker before a model's name at Amazon Bedrock, with or without a region: `eu.anthropic.claude-...`."""
_VERSION_SUFFIX = re.compile(r"-(?:\d{4}-?\d{2}-?\d{2})(?=$|-)|-v\d+(?:-\d+)?$")
"""Date or number of a version; bills often leave it out."""
_CLAUDE = re.compile(r"claude-(?:([a-z]+)-(\d+(?:-\d+)?)|(\d+(?:-\d+)?)-([a-z]+))")
"""Anthropic has its number after the family or before it, and AWS may write the other order: `Claude4.5Sonnet`."""


def _spellings(model: str) -> tuple[str, ...]:
    """How bills may write a model: its full name, without maker and version, and Claude's number in its other place."""
    full = model.rpartition("/")[2].lower()
    short = _normalize(_MAKER_PREFIX.sub("", full))
    while (without_version := _VERSION_SUFFIX.sub("", short)) != short:
        short = without_version
    claude = _CLAUDE.fullmatch(short)
    other = (f"claude-{claude[2] or claude[4]}-{claude[1] or claude[3]}",) if claude else ()
    return tuple(dict.fromkeys((_normalize(full), short, *other)))


def resolve_model(name: str | None, models: Iterable[str]) -> str | None:
    """The declared model that a bill's `name` means: of those whose name is contained in it (a date or region may
    surround it), the longest; the name itself if there is none. `Claude Haiku 4.5` and
    `USE1-ClaudeHaiku4.5-input-tokens` are `anthropic/claude-haiku-4-5`, or
    `bedrock/eu.anthropic.claude-haiku-4-5-20251001-v1:0` if that is declared."""
    if name is None:
        return None
    normalized = _normalize(name)
    runs = _joined_runs(normalized)
    best: tuple[int, bool, str] | None = None
    for model in sorted(models):
        for rank, candidate in enumerate(_spellings(model)):
            if candidate and (
                normalized.startswith(f"{candidate}-")
                or f"-{candidate}-" in f"-{normalized}-"
                or candidate.replace("-", "") in runs
            ):
                best = max(best or (0, False, ""), (len(candidate), rank == 0, model))
    return best[2] if best else name


def models_by_upstream(served: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Upstream's name of a model, in lower case -> our models, from pairs (upstream's name, our model).

    There may be several: a name that a company gave a deployment at Azure says nothing of its model, and may be used
    again at each of its resources."""
    models_by_name: dict[str, set[str]] = {}
    for upstream, model in served:
        models_by_name.setdefault(upstream.lower(), set()).add(model)
    return {name: tuple(sorted(models)) for name, models in models_by_name.items()}


def _joined_runs(normalized: str) -> set[str]:
    """Every run of adjacent parts of a name, joined without hyphens: `claude-3-haiku` has `claude3haiku`, `3haiku`."""
    parts = normalized.split("-")[:20]
    return {"".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}


def _normalize(name: str) -> str:
    """A name without its provider, in lower case, with hyphens for all other characters."""
    return _NOT_LETTERS.sub("-", name.rpartition("/")[2].lower()).strip("-")
