"""English texts for numbers, values, names and periods."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_MAX_DEPTH = 8
_SHORTEST_BEGINNING = 3


def per_period(period: str) -> str:
    """`a day`, `an hour`, `in total`."""
    return "in total" if period == "total" else f"{'an' if period == 'hour' else 'a'} {period}"


def quantity(number: int, one: str, many: str | None = None) -> str:
    """`1 workload`, `2 workloads`, `1,204 entries` (`many` where it is not `one` with an s)."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def format_size(size: int) -> str:
    """`1 byte`, `840 bytes`, `12.3 kB`, `4.0 MB`, `1,204.5 MB`."""
    if size < 1000:
        return quantity(size, "byte")
    return f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def display_value(value: object) -> str:
    """Format a value from YAML or JSON on one line: `a, b`, `yes`, `{use: own, words: [refund]}`. Empty values in
    braces are left out; deeply nested values become `…`."""
    if isinstance(value, list | tuple):
        return ", ".join(_nested(each, 1) for each in value)
    return _nested(value, 0)


def _nested(value: object, depth: int) -> str:
    if isinstance(value, dict | list | tuple) and depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        given = ((key, each) for key, each in value.items() if each is not None and each not in ("", [], {}))
        return f"{{{', '.join(f'{key}: {_nested(each, depth + 1)}' for key, each in given)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_nested(each, depth + 1) for each in value)}]"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def closest_name(word: str, known: Iterable[str]) -> str | None:
    """The known name most similar to `word`, or the only one that begins with it; None where none is similar."""
    from difflib import get_close_matches  # noqa: PLC0415 -- gateways import this module and never call this

    names = sorted(known)
    begun = [name for name in names if len(word) >= _SHORTEST_BEGINNING and name.startswith(word.lower())]
    if len(begun) == 1:
        return begun[0]
    return next(iter(get_close_matches(word, names, n=1)), None)


def format_period(text: str) -> str:
    """`2026-11` as `November 2026`, `2026-11-25` as `25 Nov 2026`; `total`, `month` and years unchanged. A period
    `START..END` is shown with its first and last day, or with both times where they are not midnight in UTC."""
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
