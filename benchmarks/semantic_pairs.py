"""Pairs of questions for the semantic cache: intents, words and names that settings come from, and others.

True repeats are the same intent in other words; the rest are traps of every kind, the same intent about something else,
and other intents about the same thing. Settings come from `tune`; `wide` has 416 intents. `semantic_families` prints
them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.semantic_traps import KINDS, trap

from groundplan.economics.semantic.reading import read

Intent = tuple[str, ...]
TUNE: tuple[Intent, ...] = (
    ("How do I reset my password for {tool}?", "What is the way to reset the {tool} password?",
     "I forgot my {tool} password, how can I reset it?", "Steps to reset a {tool} password please"),
    ("How many vacation days do employees in {place} get?",
     "What number of vacation days are employees in {place} entitled to?",
     "How many days of vacation does an employee in {place} receive?", "Number of vacation days for staff in {place}?"),
    ("What is the refund period for {thing}?", "How long do I have to get a refund for {thing}?",
     "Within what period can {thing} be refunded?", "Refund period of {thing}?"),
    ("Can I return {thing} within {n} days?", "Is it possible to return {thing} within {n} days?",
     "Am I allowed to return {thing} within {n} days?", "May {thing} be returned within {n} days?"),
    ("When does the office in {place} open on {day}?", "At what time does the {place} office open on {day}?",
     "What are the opening times of the {place} office on {day}?", "{day} opening time of the office in {place}?"),
    ("How do I enable two-factor login in {tool}?", "How can I switch on two-factor login in {tool}?",
     "What do I do to activate two-factor login for {tool}?", "Enable two-factor login in {tool}, how?"),
    ("How much does shipping {n} kg to {place} cost?", "What is the price of shipping {n} kg to {place}?",
     "What do you charge to ship {n} kg to {place}?", "Shipping cost for {n} kg to {place}?"),
    ("Who approves expenses above {n} euros?", "Which person approves expenses over {n} euros?",
     "Expenses above {n} euros are approved by whom?", "Who has to approve an expense of more than {n} euros?"),
    ("How do I export data from {tool}?", "What is the best way to export data out of {tool}?",
     "How can data be exported from {tool}?", "Exporting data from {tool}, how does it work?"),
    ("How do I transfer files from {place} to {place2}?", "What is the way to transfer files from {place} to {place2}?",
     "How can files be transferred from {place} to {place2}?", "Transfer of files from {place} to {place2}, how?"),
    ("Is {thing} available in {place} in {month}?", "Can I get {thing} in {place} in {month}?",
     "Will {thing} be available in {place} in {month}?", "Availability of {thing} in {place} in {month}?"),
    ("What documents are needed to open an account in {place}?",
     "Which documents do I need to open an account in {place}?",
     "To open an account in {place}, what documents are required?",
     "Documents required for opening an account in {place}?"),
    ("Why was my payment for {thing} declined?", "What is the reason my payment for {thing} was declined?",
     "My payment for {thing} was declined, why?", "Why did you decline the payment for {thing}?"),
    ("What is the maximum size of an upload to {tool}?", "How large can an upload to {tool} be at most?",
     "What upload size does {tool} allow at maximum?", "Maximum upload size of {tool}?"),
    ("Where can I find my invoices from {month}?", "Where are the invoices of {month}?",
     "In which place do I find my {month} invoices?", "Where do I get my invoices for {month}?"),
    ("Does the warranty for {thing} cover water damage?", "Is water damage covered by the {thing} warranty?",
     "Is {thing} insured against water damage under warranty?",
     "Does water damage fall under the warranty for {thing}?"),
    ("How long does delivery to {place} take?", "What is the delivery time to {place}?",
     "How many days until a delivery arrives in {place}?", "Delivery time for {place}?"),
    ("Can I change the address after ordering {thing}?",
     "Is it possible to change the address once {thing} is ordered?",
     "How can I change the address after I ordered {thing}?", "Changing the address after ordering {thing}, possible?"),
)  # fmt: skip
REPORT: tuple[Intent, ...] = (
    ("How can I cancel my subscription to {tool}?", "What should I do to cancel the {tool} subscription?",
     "I want to cancel my {tool} subscription, how?", "Cancelling a {tool} subscription: how is it done?"),
    ("What is the notice period for a lease in {place}?", "How much notice must be given for a lease in {place}?",
     "Which notice period applies to leases in {place}?", "Lease in {place}: what notice period holds?"),
    ("How many people can book {thing} for {n} hours?", "What number of people may book {thing} for {n} hours?",
     "For how many people can {thing} be booked for {n} hours?", "Booking {thing} for {n} hours, for how many people?"),
    ("When is the deadline for tax returns in {place}?", "By what date are tax returns due in {place}?",
     "What is the tax return deadline in {place}?", "Until when must I file a tax return in {place}?"),
    ("How do I install {tool} on a laptop?", "What are the steps to install {tool} on a laptop?",
     "How can {tool} be installed on a laptop?", "Installing {tool} on a laptop, how does that work?"),
    ("Is parking free at the {place} branch on {day}?", "Can I park for free at the {place} branch on {day}?",
     "Does parking cost nothing at the {place} branch on {day}?",
     "Is there free parking at the branch in {place} on {day}?"),
    ("Which meetings are planned in {place} for {month}?", "What meetings are scheduled in {place} in {month}?",
     "List the meetings planned in {place} for {month}", "What meetings do we have in {place} in {month}?"),
    ("How do I connect {tool} to the printer in {place}?", "How can I connect {tool} with the {place} printer?",
     "What do I do to connect {tool} to the printer in {place}?", "Connecting {tool} to the {place} printer, how?"),
    ("Who is responsible for safety at the {place} plant?", "Who is in charge of safety at the {place} plant?",
     "Which person is responsible for safety in the {place} plant?",
     "Responsible person for safety at the plant in {place}?"),
    ("What is the fee for sending {n} dollars to {place}?", "How much is the fee to send {n} dollars to {place}?",
     "What fee do you take for sending {n} dollars to {place}?", "Fee for sending {n} dollars to {place}?"),
    ("Can {thing} be paid in {n} instalments?", "Is it possible to pay for {thing} in {n} instalments?",
     "May I pay {thing} in {n} instalments?", "Are {n} instalments possible for {thing}?"),
    ("How do I move my contacts from {tool} to {tool2}?", "What is the way to move contacts from {tool} to {tool2}?",
     "How can contacts be moved from {tool} to {tool2}?", "Moving contacts from {tool} to {tool2}: how?"),
    ("What are the symptoms of {ill} in adults?", "Which symptoms does {ill} cause in adults?",
     "How does {ill} show itself in adults?", "Symptoms of {ill} in adults?"),
    ("Why is {tool} so slow in the morning?", "What makes {tool} so slow in the morning?",
     "What is the reason that {tool} is slow in the morning?", "{tool} is very slow in the morning, why?"),
    ("What is the average salary of a nurse in {place}?", "How much does a nurse earn on average in {place}?",
     "What does a nurse in {place} earn on average?", "Average nurse salary in {place}?"),
    ("Does {tool} work without an internet connection?", "Can {tool} be used without an internet connection?",
     "Is it possible to use {tool} without an internet connection?",
     "Without an internet connection, does {tool} work?"),
    ("How often are backups of {tool} made?", "What is the frequency of {tool} backups?",
     "How frequently is {tool} backed up?", "How often do you back up {tool}?"),
    ("Where do I report a lost badge in {place}?", "Where should a lost badge be reported in {place}?",
     "I lost my badge in {place}, where do I report it?", "To whom do I report a lost badge in {place}?"),
)  # fmt: skip
FRESH: tuple[Intent, ...] = (
    ("What is the dress code at the {place} branch?", "Which dress code holds at the branch in {place}?",
     "How should one dress at the {place} branch?", "Dress code of the branch in {place}?"),
    ("How do I share a calendar in {tool}?", "What is the way to share a calendar in {tool}?",
     "How can a calendar be shared in {tool}?", "Sharing a calendar in {tool}, how is that done?"),
    ("How long is the waiting list for {thing}?", "What is the length of the waiting list for {thing}?",
     "How much time does one wait for {thing}?", "Waiting list for {thing}, how long is it?"),
    ("Can contractors from {place} use {tool}?", "Are contractors from {place} allowed to use {tool}?",
     "May {tool} be used by contractors from {place}?", "Is {tool} open to contractors from {place}?"),
    ("Who pays for a taxi after {n} hours of overtime?", "By whom is a taxi paid after {n} hours of overtime?",
     "Which department pays for a taxi after {n} hours of overtime?", "Taxi after {n} hours of overtime: who pays?"),
    ("Which trains go from {place} to {place2} on {day}?", "What trains run from {place} to {place2} on {day}?",
     "On {day}, which trains are there from {place} to {place2}?", "Trains from {place} to {place2} on {day}?"),
    ("When will {tool} be updated in {month}?", "On what date in {month} does the update of {tool} come?",
     "In {month}, when does {tool} get its update?", "Date of the {tool} update in {month}?"),
    ("What happens to {thing} if the payment is late?", "What is the consequence of a late payment for {thing}?",
     "If I pay late for {thing}, what happens?", "Late payment for {thing}, what are the consequences?"),
    ("Why does {tool} ask for a code?", "What is the reason {tool} asks for a code?",
     "For what reason am I asked for a code by {tool}?", "{tool} asks for a code, why?"),
    ("How many litres does the tank in {place} hold?", "What is the capacity of the {place} tank in litres?",
     "How much fits into the tank in {place}, in litres?", "Capacity in litres of the tank in {place}?"),
)  # fmt: skip
FAMILIES = {"tune": TUNE, "report": REPORT, "fresh": FRESH}
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "tune": {
        "tool": ("Jira", "Outlook", "Salesforce", "the payroll portal", "GitLab", "the intranet", "Zoom"),
        "place": ("Germany", "France", "Berlin", "Spain", "Japan", "Canada", "Madrid"),
        "thing": ("shoes", "a laptop", "headphones", "the premium plan", "a sofa", "concert tickets"),
        "ill": ("measles", "asthma"),
    },
    "report": {
        "tool": ("Slack", "Photoshop", "the travel app", "Dropbox", "Notion", "the badge system", "Excel"),
        "place": ("Norway", "Boston", "Italy", "Vienna", "Kenya", "Dublin", "India"),
        "thing": ("a boat", "the meeting room", "a washing machine", "the gym course", "a bicycle", "a camera"),
        "ill": ("influenza", "diabetes", "pneumonia", "migraine"),
    },
    "fresh": {
        "tool": ("Teams", "Figma", "the canteen app", "Trello", "Miro", "the time clock", "Asana"),
        "place": ("Portugal", "Seattle", "Greece", "Hamburg", "Chile", "Prague", "Korea"),
        "thing": ("a parking permit", "the day nursery", "a standing desk", "the language course", "a piano"),
        "ill": ("measles",),
    },
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "March", "April", "June", "July", "September", "October", "December")


FRAMES: dict[str, tuple[str, Intent]] = {
    "cancel": ("renew", ("How do I cancel {o}?", "What is the way to cancel {o}?", "I want to cancel {o}, how?",
                         "How can {o} be cancelled?")),
    "renew": ("cancel", ("How do I renew {o}?", "How can {o} be renewed?", "What must I do to renew {o}?",
                         "Renewing {o}, how does it work?")),
    "price": ("", ("How much does {o} cost?", "What is the price of {o}?", "What do I have to pay for {o}?",
                   "Price of {o}?")),
    "owner": ("", ("Who is responsible for {o}?", "Who is in charge of {o}?", "Which person is responsible for {o}?",
                   "Person responsible for {o}?")),
    "approve": ("", ("Who approves {o}?", "By whom is {o} approved?", "Who has to approve {o}?",
                     "Whose approval does {o} need?")),
    "wait": ("", ("How long does it take to get {o}?", "How much time does it take until I get {o}?",
                  "How many days do I wait for {o}?", "Waiting time for {o}?")),
    "lost": ("", ("What do I do if {o} is lost?", "I lost {o}, what now?", "What should be done when {o} was lost?",
                  "Lost {o}: what to do?")),
    "rules": ("", ("What are the rules for {o}?", "Which rules apply to {o}?", "What rules must be followed for {o}?",
                   "Rules for {o}?")),
    "share": ("", ("Can I share {o} with a colleague?", "Is it possible to share {o} with a colleague?",
                   "May {o} be shared with a colleague?", "Am I allowed to share {o} with a colleague?")),
    "collect": ("return", ("Where can I pick up {o}?", "Where do I collect {o}?",
                           "At which place can {o} be collected?",
                           "Pick-up place of {o}?")),
    "return": ("collect", ("Where do I return {o}?", "At which place can {o} be returned?",
                           "Where can I hand {o} back?",
                           "Return place of {o}?")),
    "form": ("", ("Which form do I need for {o}?", "What form is needed for {o}?", "Form required for {o}?",
                  "Which form must be filled in for {o}?")),
    "contact": ("", ("Whom do I contact about {o}?", "Who is the contact for {o}?", "Who answers questions about {o}?",
                     "Contact for {o}?")),
}  # fmt: skip
OBJECTS = (
    "the parking permit", "the travel card", "the phone contract", "the company bike", "the canteen voucher",
    "the locker key", "the fitness plan", "the meeting room", "the ergonomic chair", "the second monitor",
    "the visitor badge", "the training course", "the tax certificate", "the salary advance", "the moving allowance",
    "the dental insurance", "the pension plan", "the language exam", "the coffee machine", "the courier service",
    "the storage unit", "the holiday flat", "the season ticket", "the charging cable", "the safety helmet",
    "the backup generator", "the shift plan", "the study leave", "the guest account", "the printer paper",
    "the travel vaccination", "the photo archive",
)  # fmt: skip
QUALIFIERS = ("trial", "annual", "wireless", "leather", "weekend", "junior", "emergency", "foreign")
"""Qualifiers that turn a thing into another one."""
TRAINING_QUALIFIERS = (
    "admin",
    "student",
    "corporate",
    "mobile",
    "refurbished",
    "external",
    "shared",
    "seasonal",
    "legacy",
    "medical",
    "regional",
    "overseas",
    "coastal",
    "northern",
    "digital",
    "business",
    "family",
    "urban",
    "printed",
    "veteran",
)
"""Qualifiers of training pairs."""
GERMAN = {"cancel": "Wie kündige ich {o}?", "renew": "Wie verlängere ich {o}?", "price": "Was kostet {o}?",
          "owner": "Wer ist für {o} verantwortlich?", "rules": "Welche Regeln gelten für {o}?",
          "return": "Wo gebe ich {o} zurück?"}  # fmt: skip
ADDITIONS = {"": ("{}", ""), "first": ("{place}: {}", "place"), "place": ("{} in {place}", "place"),
          "date": ("{} in {month}", "month"), "number": ("{} for {n} people", "n"),
          "unit": ("{} within {n} {unit}", "unit"),
          "direction": ("{} from {place} to {place2}", "turn")}  # fmt: skip
"""Additions around a question, and the slot that a trap changes."""
KIND_OF_SLOT = {"place": "entity", "month": "date", "n": "number", "unit": "unit", "turn": "direction"}
NEGATED = (
    ("Can I", "Can't I"), ("Am I allowed", "Am I not allowed"), ("Is it possible", "Is it impossible"),
    ("Who is", "Who isn't"), ("How do I", "How do I not"), ("Who approves", "Who doesn't approve"),
    ("has to", "doesn't have to"), ("must be", "mustn't be"), ("apply to", "don't apply to"), ("can be", "can't be"),
    ("is needed", "isn't needed"), ("do I need", "don't I need"), ("is approved", "isn't approved"),
    ("does it take", "doesn't it take"), ("do I", "don't I"), ("is responsible", "isn't responsible"),
)  # fmt: skip


def fill_slots(rng: Random, family: str) -> dict[str, str]:
    """Values of the slots of a question."""
    words = WORDS[family]
    places, tools = rng.sample(words["place"], 2), rng.sample(words["tool"], 2)
    return {
        "place": places[0], "place2": places[1], "tool": tools[0], "tool2": tools[1],
        "thing": rng.choice(words["thing"]), "ill": rng.choice(words["ill"]),
        "n": str(rng.choice((2, 3, 5, 10, 14, 20, 30, 45, 60, 90, 100, 250, 500))),
        "day": rng.choice(DAYS), "month": rng.choice(MONTHS),
    }  # fmt: skip


def generate_pairs(family: str, seed: int, rounds: int = 8) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind", "intent"} of a family; the same seed gives the same pairs."""
    rng = Random(seed)
    intents = FAMILIES[family]
    for _, (number, intent) in itertools.product(range(rounds), enumerate(intents)):
        words = fill_slots(rng, family)
        one, other = (text.format(**words) for text in rng.sample(intent, 2))
        yield {"a": one, "b": other, "same": True, "kind": "repeat", "intent": number}
        for kind in rng.sample(KINDS, 4):
            for source in (other, one):
                changed = trap(source, kind, rng)
                if changed is not None:
                    yield {"a": one, "b": changed, "same": False, "kind": kind, "intent": number}
                    break
        other_words = fill_slots(rng, family)
        changed_slot = change_slot(intent, words, other_words, rng)
        if changed_slot is not None:
            yield {"a": one, "b": changed_slot, "same": False, "kind": "entity", "intent": number}
        other_intent = rng.choice([candidate for i, candidate in enumerate(intents) if i != number])
        yield {
            "a": one,
            "b": rng.choice(other_intent).format(**words),
            "same": False,
            "kind": "intent",
            "intent": number,
        }


@dataclass(frozen=True)
class WideIntent:
    """One intent of `wide`: a thing, what is added to the question, and how it is written."""

    thing: str
    addition: str
    is_lower_case: bool
    words: dict[str, str]

    def phrase(self, text: str, thing: str = "", **changed: str) -> str:
        """A text of the frame about the thing (or another one), with its additions."""
        question = ADDITIONS[self.addition][0].replace("{}", text.rstrip("?"))
        question = question.format(o=thing or self.thing, **(self.words | changed)) + "?"
        return question.lower().rstrip("?") if self.is_lower_case else question


def generate_wide(seed: int, rounds: int = 2) -> Iterator[dict[str, Any]]:
    """As `generate_pairs`, with 416 intents (a question about a thing). Its traps are its own: other brands than in
    training pairs; the thing, the place or the verb is exchanged also in lower case."""
    rng, qualifier_rng = Random(seed), Random(seed)
    for _, frame, thing in itertools.product(range(rounds), FRAMES, OBJECTS):
        words, other_words = fill_slots(rng, "fresh"), fill_slots(rng, "fresh")
        words["unit"], other_words["unit"] = rng.sample(("hours", "days", "weeks", "months"), 2)
        intent = WideIntent(thing, rng.choice(tuple(ADDITIONS)), rng.random() < 0.4, words)
        one, other = rng.sample(FRAMES[frame][1], 2)
        first, common = intent.phrase(one), {"intent": f"{frame} {thing}"}
        yield {"a": first, "b": intent.phrase(other), "same": True, "kind": "repeat"} | common
        for text in (one, other):
            other_thing = rng.choice([candidate for candidate in OBJECTS if candidate != thing])
            yield {"a": first, "b": intent.phrase(text, other_thing), "same": False, "kind": "word"} | common
        qualified_thing = thing.replace("the ", f"the {qualifier_rng.choice(QUALIFIERS)} ", 1)
        yield {"a": first, "b": intent.phrase(other, qualified_thing), "same": False, "kind": "added"} | common
        for text, kind in itertools.chain(
            addition_traps(intent, one, other, other_words), question_traps(intent, frame, (other, one), rng)
        ):
            yield {"a": first, "b": text, "same": False, "kind": kind} | common


def addition_traps(intent: WideIntent, one: str, other: str, other_words: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(text, kind) of traps with a changed addition."""
    slot, words = ADDITIONS[intent.addition][1], intent.words
    if slot == "turn":
        yield intent.phrase(other, place=words["place2"], place2=words["place"]), "direction"
    elif slot and words[slot] != other_words[slot]:
        is_hidden = intent.addition == "first" or (intent.is_lower_case and slot == "place")
        for text in (one, other):
            yield intent.phrase(text, **{slot: other_words[slot]}), "hidden name" if is_hidden else KIND_OF_SLOT[slot]


def question_traps(intent: WideIntent, frame: str, texts: tuple[str, str], rng: Random) -> Iterator[tuple[str, str]]:
    """(text, kind) of traps with another question about the same thing."""
    opposite = FRAMES[frame][0]
    if opposite:
        yield intent.phrase(rng.choice(FRAMES[opposite][1])), "opposite"
    negated = next((text.replace(*negation, 1) for text in texts for negation in NEGATED if negation[0] in text), None)
    if negated is not None:
        yield intent.phrase(negated), "negation"
    if frame in GERMAN:
        yield intent.phrase(GERMAN[frame]), "language"
    other_frame = rng.choice([name for name in FRAMES if name not in (frame, opposite)])
    yield intent.phrase(rng.choice(FRAMES[other_frame][1])), "intent"


def generate_plain(family: str, seed: int, rounds: int = 3) -> Iterator[dict[str, Any]]:
    """Repeats of the intents of a family, in lower case or behind a name, and traps in lower case."""
    rng = Random(seed)
    intents = FAMILIES[family]
    for _, (number, intent) in itertools.product(range(rounds), enumerate(intents)):
        words, other_words = fill_slots(rng, family), fill_slots(rng, family)
        one, other = rng.sample(intent, 2)
        if rng.random() < 0.5:
            a, b = one.format(**words), other.format(**words)
            changed = change_slot((one, other), words, other_words, rng)
            variants = [(b, True, "repeat")] + ([(changed, False, "hidden name")] if changed else [])
            rows = [(a.lower().rstrip("?"), text.lower().rstrip("?"), same, kind) for text, same, kind in variants]
        else:
            name, other_name = rng.sample(WORDS[family]["place"], 2)
            texts = one.format(**words), other.format(**words)
            rows = [
                (f"{name}: {texts[0]}", f"{name}: {texts[1]}", True, "repeat"),
                *((f"{name}: {texts[0]}", f"{other_name}: {text}", False, "hidden name") for text in texts),
            ]
        for a, b, same, kind in rows:
            yield {"a": a, "b": b, "same": same, "kind": kind, "intent": number}


def generate_qualified(family: str, seed: int, rounds: int = 3) -> Iterator[dict[str, Any]]:
    """Traps of the intents of a family: a qualifier before a word that both texts have makes another thing of it."""
    rng = Random(seed)
    for _, (number, intent) in itertools.product(range(rounds), enumerate(FAMILIES[family])):
        words = fill_slots(rng, family)
        one, other = (text.format(**words) for text in rng.sample(intent, 2))
        stems = set(read(one).stems)
        reading = read(other)
        candidates = [
            begin
            for stem, (begin, _) in zip(reading.stems, reading.spans, strict=True)
            if stem in stems and other[:begin].lower().endswith(("the ", "a ", "an ", "my ", "of ", "for ", "in "))
        ]
        if candidates:
            begin = rng.choice(candidates)
            qualified = f"{other[:begin]}{rng.choice(TRAINING_QUALIFIERS)} {other[begin:]}"
            for a, b in ((one, qualified), (one.lower().rstrip("?"), qualified.lower().rstrip("?"))):
                yield {"a": a, "b": b, "same": False, "kind": "added", "intent": number}


def change_slot(intent: Intent, words: dict[str, str], other_words: dict[str, str], rng: Random) -> str | None:
    """A text of the intent with one slot changed; None if no slot of it differs."""
    text = rng.choice(intent)
    slots = [slot for slot in words if "{" + slot + "}" in text and words[slot] != other_words[slot]]
    if not slots:
        return None
    slot = rng.choice(slots)
    return text.format(**(words | {slot: other_words[slot]}))
