"""Levers in prompts: repeated or large instructions, passages that add nothing. Pure.

Tokens of a text are estimated at four characters each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from groundplan.blueprint.model import Rates, Workload
from groundplan.economics.levers.model import GroundedCall, Passage
from groundplan.economics.replay.opportunities import MTOK, PICO, Opportunity, Spent, paid

CHARACTERS_PER_TOKEN = 4
"""Estimated characters of a token."""
MIN_LINE_CHARACTERS = 20
"""Characters from which on a line that occurs twice counts as repeated."""
LARGE_PROMPT_TOKENS, LARGE_PROMPT_SHARE = 300, Decimal("0.5")
"""Tokens of instructions, and their share of the input, from which on they are worth shortening."""
ASSUMED_CUT = Decimal(1) / 3
"""Share of large instructions that is assumed to be dispensable; the evaluation set decides."""
MIN_CALLS = 30
"""Calls from which on a share is reported."""
MIN_OVERLAP = Decimal("0.05")
"""Lowest share of repeated lines in passages to report."""
MARGIN = 0.05
"""Highest loss of acceptance that fewer passages may seem to cause."""


def repeated_tokens(text: str) -> int:
    """Tokens of repeated lines, and of blanks beyond one."""
    seen: set[str] = set()
    spare = 0
    for line in text.splitlines():
        bare = " ".join(line.split())
        spare += len(line) - len(bare)
        if len(bare) >= MIN_LINE_CHARACTERS and bare.lower() in seen:
            spare += len(bare)
        seen.add(bare.lower())
    return spare // CHARACTERS_PER_TOKEN


def instructions(row: Spent, workload: Workload, rates: Rates, month: Decimal) -> Iterable[Opportunity]:
    """Levers in the workload's own prompt, which is sent with every call."""
    text = workload.system_prompt or ""
    tokens = len(text) // CHARACTERS_PER_TOKEN
    if not row.calls or not row.input or not tokens:
        return
    each = input_rate(row, rates) * row.calls * month
    twice = repeated_tokens(text)
    if twice:
        yield Opportunity(
            "shorter prompts",
            row.workload,
            twice * each,
            f"take out of {workload.prompt or 'its prompt'} what it says twice",
            f"about {twice:,} of {tokens:,} tokens are repeated lines or blanks, sent with {row.calls:,} calls",
            "small",
            "no answer should change: `groundplan knowledge evaluate` or an evaluation set shows it",
            deployment=row.deployment,
        )
    share = Decimal(tokens * row.calls) / row.input
    if tokens >= LARGE_PROMPT_TOKENS and share >= LARGE_PROMPT_SHARE:
        yield Opportunity(
            "shorter prompts",
            row.workload,
            int((tokens - twice) * ASSUMED_CUT) * each,
            f"shorten {workload.prompt or 'its prompt'} by a third",
            f"its instructions are about {tokens:,} tokens, {min(share, Decimal(1)):.0%} of the input that is paid",
            "medium",
            "assumes that a third can go; try the shorter version on an evaluation set before it is served",
            deployment=row.deployment,
        )


def input_rate(row: Spent, rates: Rates) -> Decimal:
    """Average US dollars paid for an input token, with tokens from the provider's cache at their own rate."""
    read = rates.input if rates.cache_read is None else rates.cache_read
    fresh = max(0, row.input - row.cache_read)
    each = Decimal(fresh * rates.input + row.cache_read * read) / max(1, row.input) / MTOK / PICO
    return each * paid(rates, row)


def passages(
    row: Spent, workload: Workload, rates: Rates, calls: Sequence[GroundedCall], sampled: int, month: Decimal
) -> Iterable[Opportunity]:
    """Levers in the passages of a workload's calls. `calls`: those with passages among `sampled` answers."""
    if workload.grounding is None or len(calls) < MIN_CALLS:
        return
    given = min(workload.grounding.max_bytes // CHARACTERS_PER_TOKEN, row.input // max(1, row.calls))
    share = min(Decimal(1), Decimal(len(calls)) / max(1, sampled))
    each = input_rate(row, rates) * row.calls * share * month
    lines, twice = (sum(counts) for counts in zip(*(overlap(call.passages) for call in calls), strict=True))
    if lines and Decimal(twice) / lines >= MIN_OVERLAP:
        yield Opportunity(
            "padded contexts",
            row.workload,
            given * Decimal(twice) / lines * each,
            "give each line of a document once: passages of the same call overlap",
            f"{twice} of {lines} lines that {len(calls)} calls were given were there already",
            "small",
            "assumes that passages fill what they may; fewer passages or shorter neighbours spare it",
            deployment=row.deployment,
        )
    yield from _fewer_passages(row, calls, given * each)


def overlap(given: Sequence[Passage]) -> tuple[int, int]:
    """(lines given, lines repeated from an earlier passage) of one call."""
    seen: set[tuple[str, int]] = set()
    count = twice = 0
    for document, _, first, last in given:
        for line in range(first, last + 1):
            count += 1
            twice += (document, line) in seen
            seen.add((document, line))
    return count, twice


def _fewer_passages(row: Spent, calls: Sequence[GroundedCall], whole: Decimal) -> Iterable[Opportunity]:
    """Fewer passages, if answers from half of them are accepted as often as those from all."""
    most = max(len(call.passages) for call in calls)
    few = [call.accepted for call in calls if call.accepted is not None and len(call.passages) <= most // 2]
    many = [call.accepted for call in calls if call.accepted is not None and len(call.passages) > most // 2]
    if most < 2 or min(len(few), len(many)) < MIN_CALLS:
        return
    short, full = sum(few) / len(few), sum(many) / len(many)
    error = (short * (1 - short) / len(few) + full * (1 - full) / len(many)) ** 0.5
    if short - full - 1.645 * error < -MARGIN:
        return
    spared = Decimal(most - most // 2) / most * len(many) / (len(few) + len(many))
    yield Opportunity(
        "padded contexts",
        row.workload,
        whole * spared,
        f"give {most // 2} passages instead of {most}",
        f"{short:.0%} of {len(few)} answers from at most {most // 2} passages were accepted, "
        f"{full:.0%} of {len(many)} from more",
        "small",
        "those calls may have been easier; `groundplan knowledge evaluate` shows what fewer passages miss",
        deployment=row.deployment,
    )
