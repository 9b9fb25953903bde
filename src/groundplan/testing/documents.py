"""A company's documents, invented: as many as asked for, the same for the same seed, and edited by a known amount.

Each is Markdown with front matter, headings, lists and now and then a table; their lengths are log-normal around two
kilobytes. Sentences are put together from parts, so that no two documents are alike by chance, though they share the
company's phrases as real ones do.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

MEDIAN_BYTES: Final = 2000
TOPICS: Final = (
    "Annual leave", "Travel", "Expenses", "Remote work", "Onboarding", "Safety at the line", "Pump maintenance",
    "Seal replacement", "Warranty", "Returns", "Delivery", "Invoices", "Forecast", "Closing the month", "Passwords",
    "Laptops", "Visitors", "Parking", "Parental leave", "Performance talks", "Calibration of sensors", "Cooling water",
    "Pressure tests", "Spare parts", "Supplier audits", "Quality gates", "Incident reports", "First aid", "Recycling",
    "Data protection", "Meetings", "Trade fairs", "Sponsoring", "Car fleet", "Overtime", "Shift change", "Cranes",
)  # fmt: skip
_WHO = (
    "Employees", "Team leads", "The line lead", "Purchasing", "The help desk", "Controllers", "Field engineers",
    "Contractors", "The works council", "Every visitor", "The plant manager", "Customer support", "The night shift",
    "Apprentices", "The safety officer", "Sales representatives", "The data steward", "Assemblers",
)  # fmt: skip
_DOES = (
    "hand in", "check", "sign", "file", "keep", "replace", "order", "report", "approve", "return", "measure", "clean",
    "record", "confirm", "prepare", "archive", "inspect", "label", "store", "request", "count", "compare", "update",
)  # fmt: skip
_WHAT = (
    "the form", "all receipts", "the test protocol", "worn seals", "the access card", "the spare key", "open tickets",
    "the batch number", "the torque", "the bearing", "the invoice", "the delivery note", "the calendar", "the filter",
    "the risk assessment", "the oil level", "the shipping label", "the contract", "the gauge", "the cable drum",
    "the signed copy", "the impeller", "the cooling circuit", "the price list", "the minutes", "the blue folder",
)  # fmt: skip
_WHEN = (
    "within {n} days",
    "before the {n}th of the month",
    "at least {n} hours ahead",
    "every {n} weeks",
    "after {n} cycles",
    "no later than {n} minutes after the alarm",
    "once in {n} months",
    "for {n} years",
    "up to {n} times a year",
)
_WHY = (
    "because the insurer asks for it",
    "so that nobody waits",
    "unless the lead agrees otherwise",
    "in the yellow cabinet",
    "at the front desk",
    "in hall {n}",
    "with form F-{n}",
    "by e-mail",
    "together with a colleague",
    "on the intranet",
    "if the pressure is above {n} bar",
    "when the temperature falls below {n} degrees",
    "as agreed with the customer",
    "on machine {n}",
    "according to rule {n}.{m}",
    "for orders above {n} euros",
    "in the presence of a witness",
)
_HEADINGS = (
    "Purpose",
    "Scope",
    "Steps",
    "Exceptions",
    "Deadlines",
    "Who to ask",
    "Costs",
    "Records",
    "Before you start",
)


@dataclass(frozen=True, slots=True)
class SampleDocument:
    """`body` is without front matter, which `text` has."""

    path: str
    title: str
    text: str
    body: str


def generate_documents(count: int, seed: int = 1) -> Iterator[SampleDocument]:
    """`count` documents in folders by topic."""
    dice = random.Random(seed)
    for number in range(count):
        topic = dice.choice(TOPICS)
        title = f"{topic}, site {dice.randrange(1, 60)}, part {number}"
        body = _body(dice, title, 0.72 * MEDIAN_BYTES * dice.lognormvariate(0, 0.5))
        review = date(2027, 1, 1) + timedelta(days=dice.randrange(300))
        front = f"---\ntitle: {title}\nowner: owner{dice.randrange(40)}@acme.example\nreview_by: {review}\n---\n"
        folder = re.sub(r"\W+", "-", topic.lower())
        yield SampleDocument(f"{folder}/document-{number:06}.md", title, front + body, body)


def sentence(dice: random.Random) -> str:
    """One of some hundred million."""
    parts = f"{dice.choice(_WHO)} {dice.choice(_DOES)} {dice.choice(_WHAT)} {dice.choice(_WHEN)}, {dice.choice(_WHY)}"
    return parts.format(n=dice.randrange(2, 90), m=dice.randrange(1, 9)) + "."


def _body(dice: random.Random, title: str, size: float) -> str:
    blocks = [f"# {title}"]
    length = 0
    while length < size:
        blocks.append(f"## {dice.choice(_HEADINGS)}")
        for _ in range(dice.randrange(1, 4)):
            sentences = [sentence(dice) for _ in range(dice.randrange(2, 5))]
            form = dice.random()
            blocks.append("\n".join(f"- {each}" for each in sentences) if form < 0.25 else " ".join(sentences))
            length += sum(map(len, sentences))
        if dice.random() < 0.1:
            rows = [f"| {dice.choice(_WHAT)} | {dice.randrange(1, 900)} |" for _ in range(4)]
            blocks.append("\n".join(["| Item | Amount |", "| --- | --- |", *rows]))
    return "\n\n".join(blocks) + "\n"


def edit_words(text: str, share: float, dice: random.Random) -> str:
    """The text with this share of its words replaced, left out or added, anywhere."""
    words = text.split(" ")
    spare = sentence(dice).split() + sentence(dice).split() + [str(dice.randrange(1000))]
    for place in sorted(dice.sample(range(len(words)), round(share * len(words))), reverse=True):
        form = dice.random()
        if form < 0.6:
            words[place] = dice.choice(spare)
        elif form < 0.8:
            del words[place]
        else:
            words.insert(place, dice.choice(spare))
    return " ".join(words)


def rewrite_lines(text: str, share: float, dice: random.Random) -> str:
    """Another document with the same frame: this share of its lines of prose say something else."""
    lines = text.split("\n")
    prose = [at for at, line in enumerate(lines) if len(line) > 60]
    for at in dice.sample(prose, round(share * len(prose))):
        lines[at] = " ".join(sentence(dice) for _ in range(max(1, len(lines[at]) // 80)))
    return "\n".join(lines)
