"""Pairs of questions for the semantic cache, of intents and traps that no setting comes from.

What is asked, of what, what may stand around it and what makes another thing of one are other words than those of
`semantic_pairs`. What guards let pass of `apart` was looked at after it was measured once, and of `later` nothing.
Beside the kinds of traps there: a qualifier behind
the thing (`behind`), how or where something is done (`manner`), another thing that is named after it (`head`), and
whose it is (`owner`). A third of the repeats have words around them that ask for nothing.
`semantic_families` prints them.
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
AROUND = {"": ("{}", "", ""), "team": ("{} in the {team} department", "team", "hidden name"),
          "first": ("{team}: {}", "team", "hidden name"), "since": ("{} since {month}", "month", "date"),
          "number": ("{} for {n} guests", "n", "number"), "unit": ("{} after {n} {unit}", "unit", "unit")}  # fmt: skip
"""What may stand around a question, which slot of it a trap changes, and of which kind that is."""
OPENINGS = ("Could you please tell me: ", "Hello, a quick question: ", "Hi there, ", "Sorry to bother you, but ",
            "I was wondering: ", "Please help: ")  # fmt: skip
CLOSINGS = (" Thanks!", " Thank you in advance.", " Many thanks and kind regards", " I cannot find it anywhere.")
FRENCH = {"cancel": "Comment puis-je annuler {o} ?", "order": "Comment puis-je commander {o} ?",
          "found": "Où est {o} ?", "eligible": "Qui a droit à {o} ?"}  # fmt: skip
DENIED = (("How do I", "How do I not"), ("How can", "How can't"), ("Who is", "Who isn't"), ("Is it", "Isn't it"),
          ("Do I have", "Don't I have"), ("does", "doesn't"), ("Does", "Doesn't"), ("Do you", "Don't you"),
          ("Is ", "Isn't "), ("can I", "can't I"), ("Can I", "Can't I"), ("is the", "isn't the"),
          ("is {o}", "isn't {o}"), ("applies", "does not apply"), ("qualifies", "does not qualify"))  # fmt: skip


@dataclass(frozen=True)
class Words:
    """Of what a family is made: what is asked, of what, and what makes another thing of it."""

    frames: dict[str, Frame]
    things: tuple[str, ...]
    ahead: tuple[str, ...]
    behind: tuple[str, ...]
    manner: tuple[str, ...]
    heads: tuple[str, ...]
    owners: tuple[str, ...]


FAMILIES = {
    "apart": Words(FRAMES, THINGS, AHEAD, BEHIND, MANNER, HEADS, OWNERS),
    "later": Words(
        LATER_FRAMES, LATER_THINGS, LATER_AHEAD, LATER_BEHIND, LATER_MANNER, LATER_HEADS, LATER_OWNERS
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """How one intent is said."""

    thing: str
    around: str
    plain: bool
    slots: dict[str, str]

    def said(self, text: str, thing: str = "", **changed: str) -> str:
        """A text of a frame about the thing, or another one, with what stands around it."""
        whole = AROUND[self.around][0].replace("{}", text.rstrip("? "))
        whole = whole.format(o=thing or self.thing, **(self.slots | changed)) + "?"
        return whole.lower().rstrip("?") if self.plain else whole

    def asked(self, text: str, dice: Random) -> str:
        """The same, in a third of cases with words around that ask for nothing."""
        whole = self.said(text)
        if dice.random() < 1 / 3:
            return dice.choice(OPENINGS) + whole if dice.random() < 0.6 else whole + dice.choice(CLOSINGS)
        return whole


def generate_pairs(family: str, seed: int, rounds: int = 2) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind", "intent"} of 420 intents; the same seed gives the same pairs."""
    dice, words = Random(seed), FAMILIES[family]
    for _, frame, thing in itertools.product(range(rounds), words.frames, words.things):
        slots = {"team": dice.choice(TEAMS), "month": dice.choice(MONTHS), "unit": dice.choice(UNITS),
                 "n": str(dice.randint(2, 40))}  # fmt: skip
        asked = Asked(thing, dice.choice(tuple(AROUND)), dice.random() < 0.4, slots)
        one, other = dice.sample(words.frames[frame][1], 2)
        first = asked.said(one)
        yield {"a": first, "b": asked.asked(other, dice), "same": True, "kind": "repeat", "intent": f"{frame} {thing}"}
        for text, kind in itertools.chain(
            rename_thing(words, asked, (one, other), dice),
            otherwise_asked(words.frames, asked, frame, (one, other), dice),
        ):
            yield {"a": first, "b": text, "same": False, "kind": kind, "intent": f"{frame} {thing}"}


def rename_thing(words: Words, asked: Asked, texts: tuple[str, str], dice: Random) -> Iterator[tuple[str, str]]:
    """The same asked of something else, or elsewhere, with the kind of the trap."""
    thing = asked.thing
    for text in texts:
        yield asked.said(text, dice.choice([each for each in words.things if each != thing])), "word"
    for text in texts:
        yield asked.said(text, thing.replace("the ", f"the {dice.choice(words.ahead)} ", 1)), "added"
    text = texts[1]
    yield asked.said(text, f"{thing} {dice.choice(words.behind)}"), "behind"
    yield asked.said(f"{text.rstrip('?')} {dice.choice(words.manner)}"), "manner"
    yield asked.said(text, f"{thing} {dice.choice(words.heads)}"), "head"
    yield asked.said(text, thing.replace("the", dice.choice(words.owners), 1)), "owner"
    _, slot, kind = AROUND[asked.around]
    if slot:
        held = {"team": TEAMS, "month": MONTHS, "unit": UNITS, "n": tuple(map(str, range(2, 41)))}[slot]
        instead = dice.choice([each for each in held if each != asked.slots[slot]])
        yield asked.said(text, **{slot: instead}), kind


def otherwise_asked(
    frames: dict[str, Frame], asked: Asked, frame: str, texts: tuple[str, str], dice: Random
) -> Iterator[tuple[str, str]]:
    """Something else asked about the same thing, with the kind of the trap."""
    opposite = frames[frame][0]
    if opposite:
        yield asked.said(dice.choice(frames[opposite][1])), "opposite"
    denied = next((text.replace(*each, 1) for text in texts for each in DENIED if each[0] in text), None)
    if denied is not None:
        yield asked.said(denied), "negation"
    if frame in FRENCH:
        yield asked.said(FRENCH[frame]), "language"
    stranger = dice.choice([name for name in frames if name not in (frame, opposite)])
    yield asked.said(dice.choice(frames[stranger][1])), "intent"
