"""Which of our models a name on a bill means. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOT_LETTERS = re.compile(r"[^a-z0-9]+")


def resolve(name: str | None, models: Iterable[str]) -> str | None:
    """Our model that a bill's `name` means: the same, or the longest that it begins with (a date or region behind it).

    The name itself where there is none. `Claude Haiku 4.5` is `anthropic/claude-haiku-4-5`, and so is what
    `USE1-ClaudeHaiku4.5-input-tokens` counts.
    """
    if name is None:
        return None
    wanted = _plain(name)
    runs = _runs(wanted)
    best: tuple[int, str] | None = None
    for model in sorted(models):
        own = _plain(model.rpartition("/")[2])
        if own and (wanted.startswith(f"{own}-") or f"-{own}-" in f"-{wanted}-" or own.replace("-", "") in runs):
            best = max(best or (0, ""), (len(own), model))
    return best[1] if best else name


def _runs(wanted: str) -> set[str]:
    """Parts of a name that follow each other, written together: `use1-claude3haiku-input` has claude3haiku."""
    parts = wanted.split("-")[:20]
    return {"".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}


def _plain(name: str) -> str:
    return _NOT_LETTERS.sub("-", name.rpartition("/")[2].lower()).strip("-")
