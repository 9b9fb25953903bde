"""Pairs of questions for the semantic cache, written after its rule was fixed: thirty kinds of questions, eight places.

Each question has a few wordings that mean the same, by other means than those of the other families: clefts, indirect
questions, antonyms with their order reversed, symmetrical relations, key words, orders to write something. Traps
exchange giver and receiver, the things compared, their sequence, owners, the number or adjective of a thing,
conditions, exceptions; or change one word of a closed class. Each intent is asked bare, in a note as people type it, or
within a letter, a detail of which a trap changes. `semantic_families` prints them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class Way:
    """Texts that mean the same, and traps as (kind of change, text). `{p}`, `{q}` are persons, `{x}`, `{y}` things,
    `{xs}`, `{ys}` their plurals, `{a}`, `{b}` adjectives, `{n}`, `{m}` numbers, `{d}`, `{e}` days."""

    same: tuple[str, ...]
    traps: tuple[tuple[str, str], ...]


WAYS: dict[str, Way] = {
    "give": Way(
        ("Did the {p} give the {q} the {x}?", "Did the {p} give the {x} to the {q}?",
         "Was the {x} given to the {q} by the {p}?"),
        (("roles", "Did the {q} give the {p} the {x}?"), ("roles", "Was the {x} given to the {p} by the {q}?"),
         ("tense", "Will the {p} give the {x} to the {q}?"), ("thing", "Did the {p} give the {y} to the {q}?"),
         ("relation", "Did the {p} give the {x} for the {q}?")),
    ),
    "heavier": Way(
        ("Is the {x} heavier than the {y}?", "Does the {x} weigh more than the {y}?",
         "Is it true that the {x} is heavier than the {y}?"),
        (("comparison", "Is the {y} heavier than the {x}?"), ("comparison", "Does the {y} weigh more than the {x}?"),
         ("degree", "Is the {x} as heavy as the {y}?"), ("opposite", "Is the {x} lighter than the {y}?")),
    ),
    "sequence": Way(
        ("Do I check the {x} before the {y}?", "Before the {y}, do I check the {x}?",
         "Is the {x} checked before the {y}?"),
        (("sequence", "Do I check the {y} before the {x}?"), ("sequence", "Do I check the {x} after the {y}?"),
         ("relation", "Do I check the {x} instead of the {y}?"), ("coordination", "Do I check the {x} and the {y}?")),
    ),
    "owner": Way(
        ("Where is the {p}'s {x}?", "Where is the {x} of the {p}?", "Where can I find the {p}'s {x}?"),
        (("owner", "Where is the {q}'s {x}?"), ("order", "Where is the {x}'s {p}?"),
         ("tense", "Where was the {x} of the {p}?"), ("added", "Where is the {p}'s {a} {x}?"),
         ("relation", "Where is the {x} for the {p}?")),
    ),
    "share": Way(
        ("Can I get {n} {xs} for {m} {ys}?", "Is it possible to get {n} {xs} for {m} {ys}?",
         "For {m} {ys}, can I get {n} {xs}?"),
        (("number", "Can I get {m} {xs} for {n} {ys}?"), ("number", "Is it possible to get {n} {ys} for {m} {xs}?"),
         ("mood", "Did I get {n} {xs} for {m} {ys}?"), ("exclusive", "Can I get only {n} {xs} for {m} {ys}?")),
    ),
    "beside": Way(
        ("Is the {a} {x} next to the {b} {y}?", "Is it the {a} {x} that is next to the {b} {y}?",
         "Can you tell me if the {a} {x} is next to the {b} {y}?"),
        (("order", "Is the {b} {x} next to the {a} {y}?"), ("added", "Is the {x} next to the {b} {y}?"),
         ("relation", "Is the {a} {x} under the {b} {y}?"), ("plural", "Are the {a} {xs} next to the {b} {y}?")),
    ),
    "except": Way(
        ("Can everyone except the {p} use the {x}?", "Except for the {p}, can everyone use the {x}?",
         "Can the {x} be used by everyone except the {p}?"),
        (("exception", "Can everyone, even the {p}, use the {x}?"),
         ("exception", "Can nobody except the {p} use the {x}?"),
         ("exclusive", "Can only the {p} use the {x}?"), ("person", "Can everyone except the {q} use the {x}?")),
    ),
    "until": Way(
        ("Is the {x} closed until {d}?", "Until {d}, is the {x} closed?",
         "Will you tell me if the {x} is closed until {d}?"),
        (("relation", "Is the {x} closed from {d}?"), ("relation", "Is the {x} closed on {d}?"),
         ("opposite", "Is the {x} open until {d}?"), ("date", "Is the {x} closed until {e}?"),
         ("tense", "Was the {x} closed until {d}?")),
    ),
    "caused": Way(
        ("Can I have the {x} cleaned?", "Can I get the {x} cleaned?", "Is it possible to have the {x} cleaned?"),
        (("voice", "Can I clean the {x}?"), ("tense", "Have I cleaned the {x}?"),
         ("mood", "Must I have the {x} cleaned?"), ("person", "Can the {p} have the {x} cleaned?"),
         ("negation", "Can I have the {x} uncleaned?")),
    ),
    "return": Way(
        ("The {p} rang the {q}. Should she ring back?", "The {p} rang the {q}. Is she supposed to ring back?",
         "The {q} was rung by the {p}. Should she ring back?"),
        (("person", "The {p} rang the {q}. Should he ring back?"),
         ("roles", "The {q} rang the {p}. Should she ring back?"),
         ("mood", "The {p} rang the {q}. Can she ring back?"), ("tense", "The {p} rang the {q}. Did she ring back?")),
    ),
    "condition": Way(
        ("If the {x} breaks, does the {y} stop?", "Does the {y} stop if the {x} breaks?",
         "Does the {y} stop when the {x} breaks?"),
        (("condition", "If the {y} stops, does the {x} break?"), ("condition", "Does the {x} break if the {y} stops?"),
         ("negation", "Does the {y} stop unless the {x} breaks?"),
         ("sequence", "Does the {y} stop before the {x} breaks?"),
         ("relation", "Does the {y} stop although the {x} breaks?")),
    ),
    "reports": Way(
        ("Who does the {p} report to?", "To whom does the {p} report?", "Which person does the {p} report to?"),
        (("roles", "Who reports to the {p}?"), ("focus", "Does the {p} report to anyone?"),
         ("focus", "When does the {p} report?"), ("tense", "Who did the {p} report to?"),
         ("person", "Who does the {q} report to?")),
    ),
    "note": Way(
        ("Write a note from the {p} to the {q} about the {x}.", "Draft a note from the {p} to the {q} about the {x}.",
         "Please write a note about the {x} from the {p} to the {q}."),
        (("direction", "Write a note from the {q} to the {p} about the {x}."),
         ("thing", "Write a note from the {p} to the {q} about the {y}."),
         ("added", "Write a {a} note from the {p} to the {q} about the {x}."),
         ("word", "Rewrite a note from the {p} to the {q} about the {x}."),
         ("plural", "Write {n} notes from the {p} to the {q} about the {x}.")),
    ),
    "sum": Way(
        ("Summarise the letter of the {p} in {n} sentences.", "Summarise the {p}'s letter in {n} sentences.",
         "In {n} sentences, summarise the letter of the {p}."),
        (("number", "Summarise the letter of the {p} in {m} sentences."),
         ("order", "Summarise the {n} sentences in the letter of the {p}."),
         ("word", "Translate the letter of the {p} in {n} sentences."),
         ("person", "Summarise the letter of the {q} in {n} sentences."),
         ("relation", "Summarise the letter to the {p} in {n} sentences.")),
    ),
    "price": Way(
        ("{x} price", "What is the price of the {x}?", "How much does the {x} cost?", "Price of the {x}?"),
        (("head", "{x} price list"), ("thing", "What is the price of the {y}?"),
         ("focus", "Why does the {x} cost so much?"),
         ("plural", "How much do {n} {xs} cost?"), ("tense", "How much did the {x} cost?"), ("added", "{a} {x} price")),
    ),
    "span": Way(
        ("Does the {x} check run from {n} to {m} o'clock?", "Does the check of the {x} run from {n} to {m} o'clock?",
         "Is it from {n} to {m} o'clock that the {x} check runs?"),
        (("number", "Does the {x} check run from {m} to {n} o'clock?"),
         ("coordination", "Does the {x} check run at {n} or {m} o'clock?"),
         ("order", "Does the check {x} run from {n} to {m} o'clock?")),
    ),
    "rinsed": Way(
        ("How often is the {x} rinsed?", "How frequently is the {x} rinsed?", "How often does one rinse the {x}?"),
        (("focus", "How long is the {x} rinsed?"), ("focus", "How is the {x} rinsed?"),
         ("tense", "How often was the {x} rinsed?"), ("mood", "How often may the {x} be rinsed?"),
         ("added", "How often is the {a} {x} rinsed?")),
    ),
    "prefer": Way(
        ("Is the {x} better than the {y}?", "Would you say the {x} is better than the {y}?",
         "Is the {y} worse than the {x}?"),
        (("comparison", "Is the {y} better than the {x}?"), ("degree", "Is the {x} the best {y}?"),
         ("degree", "Is the {x} as good as the {y}?"), ("comparison", "Is the {x} worse than the {y}?")),
    ),
    "distance": Way(
        ("How far is the {x} from the {y}?", "How far is it from the {x} to the {y}?",
         "What is the distance from the {x} to the {y}?"),
        (("focus", "How long does it take from the {x} to the {y}?"), ("relation", "How far into the {y} is the {x}?"),
         ("added", "How far is the {a} {x} from the {y}?"), ("thing", "How far is the {x} from the exit?")),
    ),
    "all": Way(
        ("Are all {xs} numbered?", "Is every {x} numbered?", "Is each {x} numbered?"),
        (("quantity", "Are some {xs} numbered?"), ("quantity", "Are most {xs} numbered?"),
         ("quantity", "Are {xs} numbered?"),
         ("negation", "Are no {xs} numbered?"), ("negation", "Are all {xs} unnumbered?"),
         ("quantity", "Are both {xs} numbered?")),
    ),
    "perfect": Way(
        ("Could the {p} have locked the {x}?", "Could the {x} have been locked by the {p}?",
         "Is it possible that the {p} locked the {x}?"),
        (("tense", "Could the {p} lock the {x}?"), ("mood", "Should the {p} have locked the {x}?"),
         ("opposite", "Could the {p} have unlocked the {x}?"), ("roles", "Could the {x} have locked the {p}?")),
    ),
    "particle": Way(
        ("Did the {p} take down the {x}?", "Did the {p} take the {x} down?", "Was the {x} taken down by the {p}?"),
        (("particle", "Did the {p} take the {x} up?"), ("particle", "Did the {p} take over the {x}?"),
         ("particle", "Did the {p} take the {x}?"), ("mood", "Must the {p} take down the {x}?")),
    ),
    "purpose": Way(
        ("Why does the {p} carry the {x}?", "For what reason does the {p} carry the {x}?",
         "What is the reason that the {p} carries the {x}?"),
        (("focus", "How does the {p} carry the {x}?"), ("negation", "Why doesn't the {p} carry the {x}?"),
         ("tense", "Why did the {p} carry the {x}?"), ("plural", "Why does the {p} carry {xs}?"),
         ("mood", "Why must the {p} carry the {x}?"), ("person", "Why does the {q} carry the {x}?")),
    ),
    "enter": Way(
        ("May the {p} open the {x}?", "Is the {p} allowed to open the {x}?",
         "I'd like to know whether the {p} may open the {x}."),
        (("mood", "Must the {p} open the {x}?"), ("mood", "Will the {p} open the {x}?"),
         ("opposite", "May the {p} close the {x}?"),
         ("manner", "May the {p} open the {x} alone?"), ("person", "May the {q} open the {x}?"),
         ("roles", "May the {x} open the {p}?"),
         ("number", "May the {p} open the {x} twice?")),
    ),
    "small": Way(
        ("Is the {x} too small for the {p}?", "Can you tell me whether the {x} is too small for the {p}?",
         "For the {p}, is the {x} too small?"),
        (("degree", "Is the {x} small enough for the {p}?"), ("degree", "Is the {x} small for the {p}?"),
         ("roles", "Is the {p} too small for the {x}?"), ("opposite", "Is the {x} too large for the {p}?"),
         ("degree", "Is the {x} much too small for the {p}?")),
    ),
    "follow": Way(
        ("Is it the {p} who follows the {q}?", "Does the {p} follow the {q}?", "Is the {q} followed by the {p}?"),
        (("roles", "Is it the {q} who follows the {p}?"), ("roles", "Does the {q} follow the {p}?"),
         ("tense", "Did the {p} follow the {q}?"), ("relation", "Does the {p} follow with the {q}?"),
         ("manner", "Does the {p} still follow the {q}?")),
    ),
    "swap": Way(
        ("Can I swap the {x} for the {y}?", "Is it possible to swap the {x} for the {y}?",
         "May I swap the {x} for the {y}?"),
        (("direction", "Can I swap the {y} for the {x}?"), ("coordination", "Can I swap the {x} and the {y}?"),
         ("mood", "Should I swap the {x} for the {y}?"), ("person", "Can we all swap the {x} for the {y}?")),
    ),
    "refuse": Way(
        ("Why did the {p} ask the {q} to wait?", "What is the reason the {p} asked the {q} to wait?",
         "Why was the {q} asked by the {p} to wait?"),
        (("roles", "Why did the {q} ask the {p} to wait?"), ("negation", "Why did the {p} ask the {q} not to wait?"),
         ("negation", "Why did the {p} not ask the {q} to wait?"), ("tense", "Why does the {p} ask the {q} to wait?"),
         ("focus", "When did the {p} ask the {q} to wait?")),
    ),
    "against": Way(
        ("Is the {p} for the new {x}?", "Is the {p} in favour of the new {x}?",
         "Do you know if the {p} is for the new {x}?"),
        (("relation", "Is the {p} against the new {x}?"), ("opposite", "Is the {p} for the old {x}?"),
         ("relation", "Is the {p} from the new {x}?"), ("tense", "Was the {p} for the new {x}?")),
    ),
    "made": Way(
        ("What is the {x} made of?", "Of what is the {x} made?", "What material is the {x} made of?"),
        (("focus", "Where is the {x} made?"), ("relation", "What is the {x} made for?"),
         ("focus", "How is the {x} made?"),
         ("tense", "What was the {x} made of?"), ("relation", "What is made of the {x}?"),
         ("focus", "Who is the {x} made by?")),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A workplace: its persons, things (singular|plural), and adjectives of things."""

    persons: tuple[str, ...]
    things: tuple[str, ...]
    adjectives: tuple[str, ...]


PLACES = {
    "theatre": Place(
        ("usher", "soprano", "prompter", "stagehand"),
        (
            "curtain|curtains",
            "trapdoor|trapdoors",
            "spotlight|spotlights",
            "costume|costumes",
            "dress circle|dress circles",
        ),
        ("dusty", "painted", "narrow"),
    ),
    "software": Place(
        ("maintainer", "reviewer", "contributor", "tester"),
        ("branch|branches", "pipeline|pipelines", "container|containers", "parser|parsers", "merge queue|merge queues"),
        ("stale", "signed", "flaky"),
    ),
    "airline": Place(
        ("steward", "pilot", "passenger", "purser"),
        ("galley|galleys", "blanket|blankets", "life vest|life vests", "trolley|trolleys", "headset|headsets"),
        ("folded", "inflatable", "spare"),
    ),
    "vet": Place(
        ("vet", "groomer", "breeder", "keeper"),
        ("kennel|kennels", "syringe|syringes", "muzzle|muzzles", "leash|leashes", "feeding bowl|feeding bowls"),
        ("sterile", "muddy", "padded"),
    ),
    "court": Place(
        ("judge", "witness", "bailiff", "clerk"),
        (
            "transcript|transcripts",
            "exhibit|exhibits",
            "robe|robes",
            "evidence locker|evidence lockers",
            "bench|benches",
        ),
        ("sealed", "redacted", "wooden"),
    ),
    "kitchen": Place(
        ("chef", "waiter", "baker", "porter"),
        ("oven|ovens", "ladle|ladles", "freezer|freezers", "apron|aprons", "pastry tray|pastry trays"),
        ("greasy", "copper", "broken"),
    ),
    "newsroom": Place(
        ("editor", "reporter", "columnist", "intern"),
        ("headline|headlines", "camera|cameras", "press pass|press passes", "studio|studios", "archive|archives"),
        ("blurred", "borrowed", "foreign"),
    ),
    "harbour": Place(
        ("captain", "diver", "docker", "lookout"),
        ("anchor|anchors", "crane|cranes", "buoy|buoys", "gangway|gangways", "tug boat|tug boats"),
        ("rusty", "floating", "yellow"),
    ),
}
DAYS = ("Monday", "Tuesday", "Thursday", "Friday", "Sunday")
LETTERS = (
    "I have been here since {year}, and by now I know most of the house. Yesterday {n} people asked me something that "
    "I could not answer, and nobody in the office in {city} picked up the phone. So I try it this way. {asked} I look "
    "through everything again tonight, and a short answer is enough for me.",
    "{asked} I ask because our group of {n} from {city} arrives tomorrow, and what we were told in {year} is perhaps "
    "no longer right.",
)
CITIES = ("Leeds", "Porto", "Ghent", "Turin", "Malmo")
NOTES = (("hi, ", ""), ("", " thx"), ("quick one: ", " cheers"), ("", " (urgent!)"), ("hey folks, ", " pls"))


def generate_pairs(
    family: str, ways: dict[str, Way], places: dict[str, Place], seed: int, rounds: int = 3
) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind", "intent"} of an intent per way, place and round; a seed gives the same pairs."""
    rng, intents = Random(f"{family} {seed}"), set[str]()
    for _, (name, way), (place, words) in itertools.product(range(rounds), ways.items(), places.items()):
        slots = _fill_slots(words, rng)
        intent = f"{name} {place} {' '.join(slots[each] for each in 'pqxy')}"
        if intent in intents:
            continue
        intents.add(intent)
        form, details = rng.choice(("bare", "bare", "note", *LETTERS)), _details(rng)

        def phrase(text: str, letter_details: dict[str, str], form: str = form, slots: dict[str, str] = slots) -> str:
            question = text.format(**slots)
            question = question[0].upper() + question[1:]
            return form.format(asked=question, **letter_details) if "{" in form else question

        wording, *other_wordings = rng.sample(way.same, 3)
        first_text = phrase(wording, details)
        for text in other_wordings:
            repeat = _type_hastily(phrase(text, details), rng) if form == "note" else phrase(text, details)
            yield {"a": first_text, "b": repeat, "same": True, "kind": "repeat", "intent": intent}
        for kind, text in way.traps:
            yield {"a": first_text, "b": phrase(text, details), "same": False, "kind": kind, "intent": intent}
        if "{" in form:
            detail = rng.choice(("year", "n", "city"))
            changed_details = details | {detail: _details(rng, details)[detail]}
            yield {
                "a": first_text,
                "b": phrase(wording, changed_details),
                "same": False,
                "kind": "detail",
                "intent": intent,
            }


def _fill_slots(words: Place, rng: Random) -> dict[str, str]:
    (p, q), (a, b) = rng.sample(words.persons, 2), rng.sample(words.adjectives, 2)
    (x, xs), (y, ys) = (each.split("|") for each in rng.sample(words.things, 2))
    n, m = rng.sample(range(2, 12), 2)
    d, e = rng.sample(DAYS, 2)
    return {
        "p": p,
        "q": q,
        "a": a,
        "b": b,
        "x": x,
        "xs": xs,
        "y": y,
        "ys": ys,
        "n": str(n),
        "m": str(m),
        "d": d,
        "e": e,
    }


def _details(rng: Random, other_than: dict[str, str] | None = None) -> dict[str, str]:
    choices = {"year": tuple(map(str, range(2009, 2025))), "n": tuple(map(str, range(13, 40))), "city": CITIES}
    return {
        name: rng.choice([each for each in values if each != (other_than or {}).get(name)])
        for name, values in choices.items()
    }


def _type_hastily(text: str, rng: Random) -> str:
    """The text as people type it in a hurry."""
    prefix, suffix = rng.choice(NOTES)
    draw = rng.random()
    if draw < 0.3:
        text = text.lower().rstrip("?.")
    elif draw < 0.4:
        text = text.upper()
    elif draw < 0.6:
        text = text.replace("?", "??")
    return f"{prefix}{text}{suffix}"
