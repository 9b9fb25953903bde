"""Which of our models a name on a bill means. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOT_LETTERS = re.compile(r"[^a-z0-9]+")
_MAKER = re.compile(
    r"^(?:[a-z-]+\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot|nvidia|openai|qwen|writer)"
    r"\.(?=[a-z])"
)
"""In front of a model's name at Amazon Bedrock, with or without a region: `eu.anthropic.claude-...`."""
_EDITION = re.compile(r"-(?:\d{4}-?\d{2}-?\d{2})(?=$|-)|-v\d+(?:-\d+)?$")
"""The day or number of a version; bills often leave it out."""


def _names(model: str) -> tuple[str, ...]:
    """How bills may write a model: whole, and without its maker and edition."""
    last = model.rpartition("/")[2].lower()
    short = _plain(_MAKER.sub("", last))
    while (less := _EDITION.sub("", short)) != short:
        short = less
    return tuple(dict.fromkeys((_plain(last), short)))


def resolve(name: str | None, models: Iterable[str]) -> str | None:
    """The declared model that a bill's `name` means: the same, or the longest that it begins with (a date or region
    behind it); the name itself if there is none. `Claude Haiku 4.5` and `USE1-ClaudeHaiku4.5-input-tokens` are
    `anthropic/claude-haiku-4-5`, or `bedrock/eu.anthropic.claude-haiku-4-5-20251001-v1:0` if that is declared."""
    if name is None:
        return None
    wanted = _plain(name)
    runs = _runs(wanted)
    best: tuple[int, bool, str] | None = None
    for model in sorted(models):
        for place, own in enumerate(_names(model)):
            if own and (wanted.startswith(f"{own}-") or f"-{own}-" in f"-{wanted}-" or own.replace("-", "") in runs):
                best = max(best or (0, False, ""), (len(own), place == 0, model))
    return best[2] if best else name


def by_upstream(served: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Of pairs (what an upstream calls a model, our model): our models by that name in small letters. A name that a
    company gave a deployment at Azure says nothing of its model, and may be given at each of its resources."""
    found: dict[str, set[str]] = {}
    for upstream, model in served:
        found.setdefault(upstream.lower(), set()).add(model)
    return {name: tuple(sorted(models)) for name, models in found.items()}


def _runs(wanted: str) -> set[str]:
    """Parts of a name that follow each other, written together: `use1-claude3haiku-input` has claude3haiku."""
    parts = wanted.split("-")[:20]
    return {"".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}


def _plain(name: str) -> str:
    return _NOT_LETTERS.sub("-", name.rpartition("/")[2].lower()).strip("-")
