"""Levers in what is sent: instructions that repeat themselves or are most of what is paid, passages that add nothing.

Tokens of a text are estimated at four characters each. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from groundplan.blueprint.model import Rates, Workload
from groundplan.economics.levers.model import Grounded, Passage
from groundplan.economics.replay.opportunities import MTOK, PICO, Opportunity, Spent, paid

CHARACTERS = 4
"""Of a token."""
SENTENCE = 20
"""Characters from which a line that is there twice counts as repeated."""
LARGE, MOST = 300, Decimal("0.5")
"""Tokens of instructions, and their share of the input, from which they are worth shortening."""
CUT = Decimal(1) / 3
"""Of large instructions, taken to be spared; the evaluation set decides."""
ENOUGH = 30
"""Calls that a share is told from."""
PADDED = Decimal("0.05")
"""Share of the given lines that is there twice from which it is told."""
MARGIN = 0.05
"""Acceptance that fewer passages may seem to cost at most."""


def repeated_tokens(text: str) -> int:
    """Tokens of lines that are there already, and of blanks beyond one."""
    seen: set[str] = set()
    spare = 0
    for line in text.splitlines():
        bare = " ".join(line.split())
        spare += len(line) - len(bare)
        if len(bare) >= SENTENCE and bare.lower() in seen:
            spare += len(bare)
        seen.add(bare.lower())
    return spare // CHARACTERS


def instructions(row: Spent, workload: Workload, rates: Rates, month: Decimal) -> Iterable[Opportunity]:
    """Of the workload's own prompt, which goes with every call."""
    text = workload.system_prompt or ""
    tokens = len(text) // CHARACTERS
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
    if tokens >= LARGE and share >= MOST:
        yield Opportunity(
            "shorter prompts",
            row.workload,
            int((tokens - twice) * CUT) * each,
            f"shorten {workload.prompt or 'its prompt'} by a third",
            f"its instructions are about {tokens:,} tokens, {min(share, Decimal(1)):.0%} of the input that is paid",
            "medium",
            "assumes that a third can go; try the shorter version on an evaluation set before it is served",
            deployment=row.deployment,
        )


def input_rate(row: Spent, rates: Rates) -> Decimal:
    """US dollars of an input token as it was paid: what came from the provider's cache at its own rate."""
    read = rates.input if rates.cache_read is None else rates.cache_read
    fresh = max(0, row.input - row.cache_read)
    each = Decimal(fresh * rates.input + row.cache_read * read) / max(1, row.input) / MTOK / PICO
    return each * paid(rates, row)


def passages(
    row: Spent, workload: Workload, rates: Rates, calls: Sequence[Grounded], sampled: int, month: Decimal
) -> Iterable[Opportunity]:
    """Of the calls of this workload that were given passages, which are those of `sampled` answers."""
    if workload.grounding is None or len(calls) < ENOUGH:
        return
    given = min(workload.grounding.max_bytes // CHARACTERS, row.input // max(1, row.calls))
    share = min(Decimal(1), Decimal(len(calls)) / max(1, sampled))
    each = input_rate(row, rates) * row.calls * share * month
    lines, twice = (sum(counts) for counts in zip(*(overlap(call.passages) for call in calls), strict=True))
    if lines and Decimal(twice) / lines >= PADDED:
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
    yield from _fewer(row, calls, given * each)


def overlap(given: Sequence[Passage]) -> tuple[int, int]:
    """(lines given, lines that were there already in a passage before) of one call."""
    seen: set[tuple[str, int]] = set()
    count = twice = 0
    for document, _, first, last in given:
        for line in range(first, last + 1):
            count += 1
            twice += (document, line) in seen
            seen.add((document, line))
    return count, twice


def _fewer(row: Spent, calls: Sequence[Grounded], whole: Decimal) -> Iterable[Opportunity]:
    """Where answers from half of the passages are accepted as often as those from all."""
    most = max(len(call.passages) for call in calls)
    few = [call.accepted for call in calls if call.accepted is not None and len(call.passages) <= most // 2]
    many = [call.accepted for call in calls if call.accepted is not None and len(call.passages) > most // 2]
    if most < 2 or min(len(few), len(many)) < ENOUGH:
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
