"""Six sets for the semantic cache in the simplest shape: {"a", "b", "same", "kind"}, no intents, no groups.

`desk`     some dozens of short messages, written one by one (`semantic_plain.txt`)
`journeys` thousands of requests to a travel and to a data assistant, filled from slots: cities, dates, amounts, units
`statements` a hundred sentences of companies, guides and manuals, the same in other words (`semantic_statements.txt`),
           with traps derived from them
`helpdesk` questions to a help centre (`semantic_helpdesk.txt`); frames of `phrasing` were written in view of them
`counter`  questions to a bank, a gym, a university, software, written after those frames (`semantic_counter.txt`)
`letters`  some hundreds of longer texts (two or three sentences), and questions in German, French and Spanish

Written, and never changed again, before anything was measured on them. Each trap changes one thing: a negation, number,
entity, time or unit. Unlike in other families no pair names its intent.

    python benchmarks/semantic_plain.py NAME SEED > pairs.jsonl
    python benchmarks/semantic_cache.py pairs.jsonl --json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

WRITTEN_SETS = {
    "desk": Path(__file__).with_name("semantic_plain.txt"),
    "statements": Path(__file__).with_name("semantic_statements.txt"),
    "helpdesk": Path(__file__).with_name("semantic_helpdesk.txt"),
    "counter": Path(__file__).with_name("semantic_counter.txt"),
}
"""`Q: a question`, `= the same in other words`, `! kind | a trap`; `#` is a remark."""

Ways = tuple[str, ...]
JOURNEYS: dict[str, tuple[Ways, Ways]] = {
    "flight": (
        ("Find me a flight from {city} to {town} on {day}.", "I want to fly from {city} to {town} on {day}.",
         "Are there any flights on {day} from {city} to {town}?", "Which flights leave {city} for {town} on {day}?",
         "flights {city} to {town} {day}", "Show all flights from {city} to {town} on {day}."),
        ("Find me a flight from {city} to {town} on any day but {day}.",
         "Find me a train from {city} to {town} on {day}."),
    ),
    "hotel": (
        ("Book a hotel in {city} for {n} nights from {day}.", "I need a hotel in {city} for {n} nights starting {day}.",
         "Reserve {n} nights in a {city} hotel from {day} on, please.",
         "Can you get me a hotel room in {city} from {day} for {n} nights?", "hotel {city} {n} nights from {day}"),
        ("Cancel the hotel in {city} for {n} nights from {day}.",
         "Book a hotel outside {city} for {n} nights from {day}."),
    ),
    "luggage": (
        ("How heavy may my suitcase be on a flight to {city}?", "What is the weight limit for luggage to {city}?",
         "What's the maximum weight of a bag when I fly to {city}?", "luggage weight limit {city}",
         "How much may my luggage weigh if I fly to {city}?"),
        ("How large may my suitcase be on a flight to {city}?", "How light may my suitcase be on a flight to {city}?"),
    ),
    "visa": (
        ("Do I need a visa for a stay of {n} {unit} in {city}?", "Is a visa required to stay {n} {unit} in {city}?",
         "Must I have a visa when I stay in {city} for {n} {unit}?", "{n} {unit} in {city}: visa needed?",
         "Will I need a visa if I spend {n} {unit} in {city}?"),
        ("Do I need no visa for a stay of {n} {unit} in {city}?",
         "Do I need a passport for a stay of {n} {unit} in {city}?"),
    ),
    "weather": (
        ("What will the weather be like in {city} on {day}?", "How is the weather going to be in {city} on {day}?",
         "Tell me the weather forecast for {city} on {day}.", "weather {city} {day}",
         "Can you give me the forecast for {day} in {city}?"),
        ("What was the weather like in {city} on {day}?", "What will the traffic be like in {city} on {day}?"),
    ),
    "revenue": (
        ("Show revenue by region for {quarter}.", "Give me {quarter} revenue broken down by region.",
         "What was our revenue in each region in {quarter}?", "revenue per region {quarter}",
         "I'd like to see {quarter} revenues for every region."),
        ("Show profit by region for {quarter}.", "Show revenue by product for {quarter}.",
         "Show revenue by region without {quarter}."),
    ),
    "top": (
        ("List the top {n} customers by orders in {quarter}.",
         "Who were our {n} best customers by orders in {quarter}?",
         "Which {n} customers ordered the most in {quarter}?", "top {n} customers by orders {quarter}",
         "Show me the {n} customers with the most orders in {quarter}."),
        ("List the bottom {n} customers by orders in {quarter}.",
         "List the top {n} suppliers by orders in {quarter}."),
    ),
    "churn": (
        ("How many customers left us in {quarter}?", "What was the number of customers that left in {quarter}?",
         "How many customers did we lose in {quarter}?", "number of customers lost {quarter}",
         "Count the customers who left in {quarter}."),
        ("How many customers joined us in {quarter}?", "How many customers did not leave us in {quarter}?",
         "How many employees left us in {quarter}?"),
    ),
    "late": (
        ("Which orders to {city} are more than {n} {unit} late?",
         "Show orders to {city} that are over {n} {unit} late.",
         "List all orders for {city} delayed by more than {n} {unit}.", "orders {city} late more than {n} {unit}",
         "What orders to {city} have a delay of more than {n} {unit}?"),
        ("Which orders to {city} are less than {n} {unit} late?",
         "Which orders to {city} are not more than {n} {unit} late?"),
    ),
    "stock": (
        ("How many {item} do we have in stock in {city}?", "What is the stock of {item} in {city}?",
         "How many {item} are in stock at {city}?", "stock {item} {city}",
         "Can you tell me how many {item} are available in {city}?"),
        ("How many {item} did we sell in {city}?", "How many {item} are not in stock in {city}?"),
    ),
    "price": (
        ("What does it cost to ship {n} {item} to {city}?", "How much is shipping {n} {item} to {city}?",
         "What is the shipping cost of {n} {item} to {city}?", "shipping cost {n} {item} to {city}",
         "How much do I pay to have {n} {item} shipped to {city}?"),
        ("How long does it take to ship {n} {item} to {city}?", "What does it cost to return {n} {item} to {city}?"),
    ),
    "remind": (
        ("Remind me {n} {unit} before my trip to {city}.", "Set a reminder {n} {unit} ahead of my trip to {city}.",
         "Please remind me of my trip to {city} {n} {unit} before.", "reminder {n} {unit} before trip to {city}",
         "I want to be reminded {n} {unit} before I travel to {city}."),
        ("Remind me {n} {unit} after my trip to {city}.", "Do not remind me {n} {unit} before my trip to {city}."),
    ),
}  # fmt: skip
"""Name -> (wordings of a request, other requests: a negation, another verb, another thing)."""
SLOTS: dict[str, tuple[str, Ways]] = {
    "city": ("entity", ("Lisbon", "Oslo", "Denver", "Kyoto", "Nairobi", "Lima", "Perth", "Dublin", "Turin", "Quebec")),
    "town": ("entity", ("Vienna", "Cairo", "Boston", "Manila", "Bergen", "Seville", "Austin", "Krakow")),
    "day": ("time", ("Monday", "Friday", "3 May", "14 July", "Sunday", "22 November", "tomorrow")),
    "quarter": ("time", ("Q1 2025", "Q2 2025", "Q3 2024", "Q4 2024", "June 2025", "2023")),
    "n": ("number", ("2", "3", "5", "7", "10", "12", "20")),
    "unit": ("unit", ("days", "weeks", "hours", "months")),
    "item": ("entity", ("office chairs", "water pumps", "bicycles", "tents", "desk lamps", "batteries", "mirrors")),
}
"""Slot -> (kind of a trap that changes it, its values)."""

LETTERS: dict[str, tuple[Ways, Ways]] = {
    "parcel": (
        ("Hello, I ordered a {item} {n} days ago. It has not arrived in {city} yet. Where is it?",
         "Hi, my {item} still hasn't come, I ordered it {n} days ago. Can you tell me where it is? I live in {city}.",
         "Where is the {item} that I ordered {n} days ago? It has not reached {city} yet."),
        ("Hello, I ordered a {item} {n} days ago. It has arrived in {city} broken. Who pays?",),
    ),
    "transfer": (
        ("I sent {n} euros to {city} on {day}. The receiver says nothing came. What can I do?",
         "On {day} I transferred {n} euros to {city}, but the receiver has got nothing. What should I do now?",
         "What can I do? The receiver in {city} has not received the {n} euros that I sent on {day}."),
        ("I received {n} euros from {city} on {day}. The sender says nothing was sent. What can I do?",),
    ),
    "moved": (
        ("We moved to {city} in {month}. Please change our address and send the next bill there.",
         "Please note that we moved to {city} in {month}. Send the next bill to the new address.",
         "Since {month} we live in {city}. Please update our address, and send the next bill there."),
        ("We moved to {city} in {month}. Please keep our address and do not send the next bill there.",),
    ),
    "summary": (
        ("Summarize the report on {city} in {n} sentences for the board.",
         "Write a summary of the report on {city} for the board, {n} sentences long.",
         "Please give me a {n} sentence summary of the {city} report for the board."),
        ("Translate the report on {city} in {n} sentences for the board.",
         "Summarize the report on {city} in {n} pages for the board."),
    ),
    "told": (
        ("The plant in {city} made {n} percent more in {month} than the year before.",
         "In {month} the {city} plant produced {n} percent more than a year earlier.",
         "Compared with the year before, production at the {city} plant rose by {n} percent in {month}."),
        ("The plant in {city} made {n} percent less in {month} than the year before.",),
    ),
    "german": (
        ("Wie kann ich meinen Vertrag in {city} zum {n}. des Monats kündigen?",
         "Wie kündige ich meinen Vertrag in {city} zum {n}. des Monats?",
         "Was muss ich tun, um meinen Vertrag in {city} zum {n}. des Monats zu kündigen?"),
        ("Wie kann ich meinen Vertrag in {city} zum {n}. des Monats nicht kündigen?",
         "Wie kann ich meinen Vertrag in {city} zum {n}. des Monats verlängern?"),
    ),
    "french": (
        ("Comment puis-je annuler ma commande de {n} articles pour {city} ?",
         "Comment annuler ma commande de {n} articles pour {city} ?",
         "Que dois-je faire pour annuler ma commande de {n} articles pour {city} ?"),
        ("Comment puis-je ne pas annuler ma commande de {n} articles pour {city} ?",
         "Comment puis-je modifier ma commande de {n} articles pour {city} ?"),
    ),
    "spanish": (
        ("¿Cuántos días tarda el envío de {n} cajas a {city}?",
         "¿Cuánto tarda en llegar un envío de {n} cajas a {city}?",
         "¿Cuál es el plazo de entrega de {n} cajas a {city}?"),
        ("¿Cuántas horas tarda el envío de {n} cajas a {city}?", "¿Cuánto cuesta el envío de {n} cajas a {city}?"),
    ),
}  # fmt: skip
LETTER_SLOTS: dict[str, tuple[str, Ways]] = SLOTS | {
    "item": ("entity", ("kettle", "tent", "bookshelf", "camera", "suitcase", "toaster", "mattress")),
    "month": ("time", ("January", "March", "June", "September", "October", "December")),
}


def _read_written(path: Path) -> Iterator[tuple[str, str, bool, str]]:
    question = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        mark, _, content = line.partition(" ")
        if mark == "Q:":
            question = content
        elif mark == "=":
            yield question, content, True, "repeat"
        elif mark == "!":
            kind, _, text = content.partition(" | ")
            yield question, text, False, kind


def _fill_requests(
    requests: dict[str, tuple[Ways, Ways]], slots: dict[str, tuple[str, Ways]], rounds: int, rng: Random
) -> Iterator[tuple[str, str, bool, str]]:
    for _ in range(rounds):
        for wordings, others in requests.values():
            values = {name: rng.choice(choices) for name, (_, choices) in slots.items()}
            first, *rest = rng.sample(wordings, 3)
            for wording in rest:
                yield first.format(**values), wording.format(**values), True, "repeat"
            used_slots = [name for name in slots if "{" + name + "}" in first]
            for name in rng.sample(used_slots, min(2, len(used_slots))):
                kind, choices = slots[name]
                replacement = rng.choice([word for word in choices if word != values[name]])
                yield first.format(**values), rng.choice(wordings).format(**values | {name: replacement}), False, kind
            other = rng.choice(others)
            yield first.format(**values), other.format(**values), False, "other"


def generate_pairs(name: str, seed: int) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind"} of one of the sets; the same seed gives the same pairs."""
    rng = Random(seed)
    rows = (
        _read_written(WRITTEN_SETS[name])
        if name in WRITTEN_SETS
        else _fill_requests(JOURNEYS, SLOTS, 60, rng)
        if name == "journeys"
        else _fill_requests(LETTERS, LETTER_SLOTS, 10, rng)
    )
    for a, b, same, kind in rows:
        yield {"a": a, "b": b, "same": same, "kind": kind}


NAMES = ("desk", "journeys", "letters", "statements", "helpdesk", "counter")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    for pair in generate_pairs(arguments.name, arguments.seed):
        print(json.dumps(pair, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
