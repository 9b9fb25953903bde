"""Pairs of questions for the semantic cache, of intents and traps that no setting comes from.

The questions, things, additions and qualifiers are other words than those of `semantic_pairs`. The misses of the guards
on `apart` were looked at after it was measured once, those on `later` never. Kinds of traps beyond those there: a
qualifier behind the thing (`behind`), how or where something is done (`manner`), another thing that is named after it
(`head`), and its owner (`owner`). A third of the repeats have polite words around them. `semantic_families` prints
them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

Frame = tuple[str, tuple[str, ...]]
"""The frame that asks the opposite, or none; texts that ask the same."""
FRAMES: dict[str, Frame] = {
    "repair": ("", ("How do I get {o} repaired?", "How can I have {o} repaired?", "How can {o} be repaired?",
                    "What do I do to have {o} repaired?")),
    "insured": ("", ("Is {o} insured?", "Does our insurance cover {o}?", "Is {o} covered by our insurance?",
                     "Do we have insurance for {o}?")),
    "expiry": ("", ("When does {o} expire?", "What is the expiry date of {o}?", "On what date does {o} expire?",
                    "Until when is {o} valid?")),
    "order": ("cancel", ("How do I order {o}?", "How can I order {o}?", "How is {o} ordered?",
                         "What must I do to order {o}?")),
    "cancel": ("order", ("How do I cancel {o}?", "How can I cancel {o}?", "I would like to cancel {o}, how?",
                         "Cancelling {o}: how does it work?")),
    "apply": ("", ("How do I apply for {o}?", "How can I apply for {o}?", "What is the way to apply for {o}?",
                   "Applying for {o}, how is it done?")),
    "eligible": ("", ("Who is eligible for {o}?", "Which people are eligible for {o}?", "Who is entitled to {o}?",
                      "Who qualifies for {o}?")),
    "alter": ("", ("How do I change {o}?", "How can {o} be changed?", "What are the steps to change {o}?",
                   "I want to change {o}, what do I do?")),
    "tax": ("", ("Do I have to pay tax on {o}?", "Is {o} subject to tax?", "Must I pay tax on {o}?",
                 "Does one have to pay tax on {o}?")),
    "checked": ("", ("How often is {o} checked?", "How frequently is {o} checked?", "How often do you check {o}?",
                     "What is the frequency of checks of {o}?")),
    "found": ("", ("Where is {o}?", "Where can I find {o}?", "At which place is {o} to be found?",
                   "Where do I find {o}?")),
    "damage": ("", ("How do I report damage to {o}?", "How can damage to {o} be reported?",
                    "What is the way to report damage to {o}?", "Reporting damage to {o}, how does it work?")),
    "refund": ("charge", ("Can I get a refund for {o}?", "Is it possible to get a refund for {o}?",
                          "May I have a refund for {o}?", "Do you give a refund for {o}?")),
    "charge": ("refund", ("Is there a charge for {o}?", "Do you charge for {o}?", "Is {o} charged for?",
                          "Must I pay a charge for {o}?")),
    "limit": ("", ("What is the limit for {o}?", "Which limit applies to {o}?", "How high is the limit for {o}?",
                   "Limit for {o}?")),
}  # fmt: skip
THINGS = (
    "the water cooler", "the gym membership", "the expense card", "the client database", "the lease car",
    "the fire door", "the lunch voucher", "the master key", "the sales report", "the security pass",
    "the delivery van", "the research grant", "the server room", "the parental leave", "the mail account",
    "the hearing test", "the rail pass", "the stock option", "the tool box", "the wage slip", "the data plan",
    "the health check", "the project budget", "the relocation bonus", "the notice board", "the label printer",
    "the conference fee", "the garden bench",
)  # fmt: skip
AHEAD = ("provincial", "disposable", "senior", "electric", "rented", "marketing", "outdoor", "nordic", "interim",
         "wooden", "continental", "lifetime", "spare", "metropolitan")  # fmt: skip
BEHIND = ("for interns", "for pensioners", "of the subsidiary", "in the cellar", "at the airport", "during probation",
          "on loan", "for night workers", "of the supplier", "with a trailer")  # fmt: skip
MANNER = ("anonymously", "abroad", "by post", "in cash", "remotely", "as a group", "verbally", "through an agent")
HEADS = ("form", "cover", "holder", "list", "supplier", "committee", "stand", "training")
OWNERS = ("my colleague's", "the director's", "a customer's", "my wife's", "the neighbour's", "our auditor's")
LATER_FRAMES: dict[str, Frame] = {
    "rent": ("", ("How do I rent {o}?", "How can I rent {o}?", "What must I do to rent {o}?",
                  "Renting {o}, how does it work?")),
    "weight": ("", ("How heavy is {o}?", "What is the weight of {o}?", "How much does {o} weigh?", "Weight of {o}?")),
    "built": ("", ("When was {o} built?", "In which year was {o} built?", "What is the year of construction of {o}?",
                   "When did they build {o}?")),
    "teach": ("", ("Who teaches how to use {o}?", "Who explains the use of {o}?",
                   "Which person teaches the use of {o}?", "By whom is the use of {o} taught?")),
    "lend": ("return", ("May I lend {o} to a friend?", "Am I allowed to lend {o} to a friend?",
                        "Can {o} be lent to a friend?", "Is it possible to lend {o} to a friend?")),
    "return": ("lend", ("When must I return {o}?", "By when does {o} have to be returned?",
                        "What is the date to return {o}?", "Until when do I have to return {o}?")),
    "storage": ("", ("Where is {o} stored?", "Where do we store {o}?", "At which place is {o} stored?",
                     "What is the storage place of {o}?")),
    "paint": ("", ("What colour does {o} have?", "Which colour is {o}?", "What is the colour of {o}?",
                   "Colour of {o}?")),
    "supplier": ("", ("Who supplies {o}?", "Who is the supplier of {o}?", "Which company supplies {o}?",
                      "By which company is {o} supplied?")),
    "noise": ("", ("Why does {o} make noise?", "What is the reason {o} makes noise?",
                   "{o} makes noise, what is the cause?", "Why is there noise from {o}?")),
    "update": ("", ("How do I update {o}?", "How can {o} be updated?", "What are the steps to update {o}?",
                    "What do I do to update {o}?")),
    "forms": ("", ("Which papers do I need for {o}?", "What papers are needed for {o}?",
                   "Papers required for {o}?", "Which papers are required for {o}?")),
}  # fmt: skip
LATER_THINGS = (
    "the ticket machine", "the heat pump", "the cargo bike", "the film projector", "the music room", "the bread oven",
    "the drill press", "the solar panel", "the ski lift", "the swim ring", "the camping stove", "the grain silo",
    "the road roller", "the tower crane", "the paper shredder", "the fish tank", "the climbing wall", "the dish washer",
    "the air filter", "the sewing table", "the hay barn", "the rowing boat", "the glass case", "the brick kiln",
    "the steam iron", "the street lamp", "the pump station", "the ferry dock", "the snow plough", "the wind gauge",
    "the video wall", "the post counter", "the tile saw", "the cable drum", "the barrel rack",
)  # fmt: skip
LATER_AHEAD = ("alpine", "portable", "museum", "antique", "diesel", "hospital", "tropical", "borrowed", "miniature",
               "underground", "harbour", "festival")  # fmt: skip
LATER_BEHIND = ("for beginners", "of the museum", "in the attic", "at the harbour", "for wheelchair users",
                "from the auction", "without wheels", "of the fire brigade")  # fmt: skip
LATER_MANNER = ("by telephone", "on holiday", "underwater", "in the rain", "by instalments", "as a beginner")
LATER_HEADS = ("manual", "cleaner", "inspector", "licence", "museum", "spare part", "driver")
LATER_OWNERS = ("my uncle's", "the mayor's", "a tenant's", "the club's", "our landlord's")
TEAMS = ("legal", "catering", "procurement", "logistics", "research", "treasury")
MONTHS = ("February", "May", "August", "November")
UNITS = ("hours", "days", "weeks", "months")
ADDITIONS = {"": ("{}", "", ""), "team": ("{} in the {team} department", "team", "hidden name"),
          "first": ("{team}: {}", "team", "hidden name"), "since": ("{} since {month}", "month", "date"),
          "number": ("{} for {n} guests", "n", "number"), "unit": ("{} after {n} {unit}", "unit", "unit")}  # fmt: skip
"""Name -> (an addition around a question, the slot that a trap changes, the kind of that trap)."""
OPENINGS = ("Could you please tell me: ", "Hello, a quick question: ", "Hi there, ", "Sorry to bother you, but ",
            "I was wondering: ", "Please help: ")  # fmt: skip
CLOSINGS = (" Thanks!", " Thank you in advance.", " Many thanks and kind regards", " I cannot find it anywhere.")
FRENCH = {"cancel": "Comment puis-je annuler {o} ?", "order": "Comment puis-je commander {o} ?",
          "found": "Où est {o} ?", "eligible": "Qui a droit à {o} ?"}  # fmt: skip
NEGATED = (("How do I", "How do I not"), ("How can", "How can't"), ("Who is", "Who isn't"), ("Is it", "Isn't it"),
          ("Do I have", "Don't I have"), ("does", "doesn't"), ("Does", "Doesn't"), ("Do you", "Don't you"),
          ("Is ", "Isn't "), ("can I", "can't I"), ("Can I", "Can't I"), ("is the", "isn't the"),
          ("is {o}", "isn't {o}"), ("applies", "does not apply"), ("qualifies", "does not qualify"))  # fmt: skip


@dataclass(frozen=True)
class FamilyWords:
    """The words of a family: questions, things, and qualifiers that turn a thing into another one."""

    frames: dict[str, Frame]
    things: tuple[str, ...]
    ahead: tuple[str, ...]
    behind: tuple[str, ...]
    manner: tuple[str, ...]
    heads: tuple[str, ...]
    owners: tuple[str, ...]


FAMILIES = {
    "apart": FamilyWords(FRAMES, THINGS, AHEAD, BEHIND, MANNER, HEADS, OWNERS),
    "later": FamilyWords(
        LATER_FRAMES, LATER_THINGS, LATER_AHEAD, LATER_BEHIND, LATER_MANNER, LATER_HEADS, LATER_OWNERS
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Intent:
    """One intent: a thing, what is added to the question, and how it is written."""

    thing: str
    addition: str
    is_lower_case: bool
    slots: dict[str, str]

    def phrase(self, text: str, thing: str = "", **changed: str) -> str:
        """A text of a frame about the thing (or another one), with its addition."""
        question = ADDITIONS[self.addition][0].replace("{}", text.rstrip("? "))
        question = question.format(o=thing or self.thing, **(self.slots | changed)) + "?"
        return question.lower().rstrip("?") if self.is_lower_case else question

    def phrase_politely(self, text: str, rng: Random) -> str:
        """The same, in a third of cases with polite words around it."""
        question = self.phrase(text)
        if rng.random() < 1 / 3:
            return rng.choice(OPENINGS) + question if rng.random() < 0.6 else question + rng.choice(CLOSINGS)
        return question


def generate_pairs(family: str, seed: int, rounds: int = 2) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind", "intent"} of 420 intents; the same seed gives the same pairs."""
    rng, words = Random(seed), FAMILIES[family]
    for _, frame, thing in itertools.product(range(rounds), words.frames, words.things):
        slots = {"team": rng.choice(TEAMS), "month": rng.choice(MONTHS), "unit": rng.choice(UNITS),
                 "n": str(rng.randint(2, 40))}  # fmt: skip
        intent = Intent(thing, rng.choice(tuple(ADDITIONS)), rng.random() < 0.4, slots)
        one, other = rng.sample(words.frames[frame][1], 2)
        first = intent.phrase(one)
        yield {
            "a": first,
            "b": intent.phrase_politely(other, rng),
            "same": True,
            "kind": "repeat",
            "intent": f"{frame} {thing}",
        }
        for text, kind in itertools.chain(
            thing_traps(words, intent, (one, other), rng),
            question_traps(words.frames, intent, frame, (one, other), rng),
        ):
            yield {"a": first, "b": text, "same": False, "kind": kind, "intent": f"{frame} {thing}"}


def thing_traps(words: FamilyWords, intent: Intent, texts: tuple[str, str], rng: Random) -> Iterator[tuple[str, str]]:
    """(text, kind) of traps with the same question about another thing, or with another addition."""
    thing = intent.thing
    for text in texts:
        yield intent.phrase(text, rng.choice([candidate for candidate in words.things if candidate != thing])), "word"
    for text in texts:
        yield intent.phrase(text, thing.replace("the ", f"the {rng.choice(words.ahead)} ", 1)), "added"
    text = texts[1]
    yield intent.phrase(text, f"{thing} {rng.choice(words.behind)}"), "behind"
    yield intent.phrase(f"{text.rstrip('?')} {rng.choice(words.manner)}"), "manner"
    yield intent.phrase(text, f"{thing} {rng.choice(words.heads)}"), "head"
    yield intent.phrase(text, thing.replace("the", rng.choice(words.owners), 1)), "owner"
    _, slot, kind = ADDITIONS[intent.addition]
    if slot:
        values = {"team": TEAMS, "month": MONTHS, "unit": UNITS, "n": tuple(map(str, range(2, 41)))}[slot]
        replacement = rng.choice([candidate for candidate in values if candidate != intent.slots[slot]])
        yield intent.phrase(text, **{slot: replacement}), kind


def question_traps(
    frames: dict[str, Frame], intent: Intent, frame: str, texts: tuple[str, str], rng: Random
) -> Iterator[tuple[str, str]]:
    """(text, kind) of traps with another question about the same thing."""
    opposite = frames[frame][0]
    if opposite:
        yield intent.phrase(rng.choice(frames[opposite][1])), "opposite"
    negated = next((text.replace(*negation, 1) for text in texts for negation in NEGATED if negation[0] in text), None)
    if negated is not None:
        yield intent.phrase(negated), "negation"
    if frame in FRENCH:
        yield intent.phrase(FRENCH[frame]), "language"
    other_frame = rng.choice([name for name in frames if name not in (frame, opposite)])
    yield intent.phrase(rng.choice(frames[other_frame][1])), "intent"
