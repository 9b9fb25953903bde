"""Words around numbers and names. English only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_DEEPEST = 8


def per_period(period: str) -> str:
    """`a day`, `an hour`, `in total`."""
    return "in total" if period == "total" else f"{'an' if period == 'hour' else 'a'} {period}"


def quantity(number: int, one: str, many: str | None = None) -> str:
    """`1 workload`, `2 workloads`, `1,204 entries` (`many` where it is not `one` with an s)."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def display_value(value: object) -> str:
    """What was read from YAML or JSON, as people write it in a line: `a, b`, `yes`, `{use: own, words: [refund]}`. Of
    what is in braces nothing is said that is empty; what lies deeper than people write is `…`."""
    if isinstance(value, list | tuple):
        return ", ".join(_inner(each, 1) for each in value)
    return _inner(value, 0)


def _inner(value: object, depth: int) -> str:
    if isinstance(value, dict | list | tuple) and depth > _DEEPEST:
        return "…"
    if isinstance(value, dict):
        given = ((key, each) for key, each in value.items() if each is not None and each not in ("", [], {}))
        return f"{{{', '.join(f'{key}: {_inner(each, depth + 1)}' for key, each in given)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_inner(each, depth + 1) for each in value)}]"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def closest_name(word: str, known: Iterable[str]) -> str | None:
    """The known name that `word` was probably meant to be."""
    from difflib import get_close_matches  # noqa: PLC0415 -- gateways read this module and never ask

    return next(iter(get_close_matches(word, sorted(known), n=1)), None)


def format_period(text: str) -> str:
    """`2026-11` as `November 2026`, `2026-11-25` as `25 Nov 2026`; `total`, `month` and years as they are. What begins
    elsewhere has its first and its last day, or both moments where these are not midnight in UTC."""
    first, _, after = text.partition("..")
    if after:
        begin, end = (datetime.fromisoformat(moment) for moment in (first, after))
        if "T" in text:
            return f"{begin:%d %b %Y %H:%M} to {end:%d %b %Y %H:%M} UTC"
        return f"{begin:%d %b %Y} to {end - timedelta(days=1):%d %b %Y}"
    for given, shown in (("%Y-%m-%d", "%d %b %Y"), ("%Y-%m", "%B %Y")):
        try:
            return datetime.strptime(text, given).replace(tzinfo=UTC).strftime(shown)
        except ValueError:
            continue
    return text
