"""Closed classes of English words that tell what a request asks for and who does what to whom: data.

A preposition, an auxiliary verb or a pronoun carries no content, but changes the answer. All other words are read as
content words.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _begin(way: re.Pattern[str]) -> re.Pattern[str]:
    """A pattern of the first words of the alternatives of a pattern."""
    ways = way.pattern.removeprefix(r"\b(?:").removesuffix(r")\b").split("|")
    return re.compile(rf"\b(?:{'|'.join(sorted({each.split()[0] for each in ways}))})\b")


def _classes(text: str) -> dict[str, str]:
    """`class: words; class: words` as word -> class."""
    pairs = (part.split(":") for part in text.split(";"))
    return {word: name.strip() for name, words in pairs for word in words.split()}


POLITE = re.compile(
    r"\b(?:(?:can|could|would|will) (?:you|someone|somebody|anyone|anybody) (?:please |kindly |maybe |perhaps )?"
    r"(?:tell|explain|show|help|advise|inform|let|clarify|confirm|remind)(?: to)?(?: me| us)?(?: know| understand)?"
    r"(?: out)?(?: with| about| on)?|(?:please |kindly |^)(?:tell|explain to|help|advise|inform|let) (?:me|us)"
    r"(?: know| understand)?|do you (?:happen to )?know|does (?:anyone|anybody|someone) know|"
    r"(?:i|we) (?:would|should) (?:like|love) to (?:know|ask|understand|find out)|"
    r"(?:i'd|we'd) (?:like|love) to (?:know|ask|understand|find out)|(?:i|we) (?:want|need) to (?:know|understand)|"
    r"(?:i|we) (?:was|were|am|are) (?:just )?(?:wondering|curious|trying to find out|not sure)|"
    r"(?:i'm|we're) (?:just )?(?:wondering|curious|not sure)|just (?:wondering|curious)|(?:i|we) wonder|"
    r"(?:may|can|could) i (?:please )?ask(?: you)?|any idea|please|kindly|"
    r"(?:(?:many|best|kind|warm|and) )*(?:thanks|thank you|regards|wishes|cheers)(?: so| very)?(?: much| a lot)?"
    r"(?: in advance)?(?: for (?:your|the|any) (?:help|time|support|answer|reply))?)\b"
)
"""Polite phrases around a question, in text with single spaces."""
POLITE_STARTS = re.compile(
    r"\b(?:can|could|would|will|please|kindly|tell|explain|help|advise|inform|let|do|does|i|we|just|may|any|many|best|"
    r"kind|warm|and|thanks|thank|regards|wishes|cheers)\b"
)
"""The first words of polite phrases."""
LEAD_INS = _words("and so but or then also well now hi hello hey please thanks if whether exactly actually maybe")
"""Words that may stand before the question word."""
WH = _words("how what which who whom whose when where why")
AUXILIARIES = _words(
    """is are was were am be do does did have has had can could may might must shall should will would isn't aren't
    wasn't weren't don't doesn't didn't haven't hasn't hadn't can't couldn't mustn't shouldn't won't wouldn't ain't"""
)
BEFORE_WH = _words("by to from for with at in on of until till since about under through within during")
ORDERS = _words(
    """explain describe list tell summarise summarize compare name write rewrite draft compose translate convert create
    generate give show find suggest recommend calculate classify extract outline prepare correct proofread rephrase
    paraphrase shorten design plan make propose check review rank sort solve define identify analyse analyze send book
    order cancel reply answer fix"""
)
"""Verbs that order something to be told or made, without a question mark."""
SUBORDINATE = _words("if because although though unless until while whenever since whether once despite so")
DETERMINERS = _words("a an the this that these those my our your his her their its any some all every each no")
POSSESSIVES = _classes("we: my our mine ours; you: your yours; they: their theirs; he: his; she: her hers")
MEASURED_ADJECTIVES = _words(
    """large big heavy high fast quickly soon late early wide deep strong small hot cold expensive hard safe thick tall
    short low close near full good bad easy"""
)

DURATION_UNITS = _words("time days weeks months years hours minutes")
"""Behind `how many` and `how much` they ask how long."""
ASPECTS = _classes(
    """how: way ways step steps procedure process method; why: reason reasons cause; when: time date day hour
    deadline year; where: place places location; who: person people employee department colleague;
    count: number quantity; duration: period length; rate: frequency;
    amount: price cost fee charge costs fees charges"""
)
"""Noun -> the question words that mean the same."""

QUESTION_NOUNS = _words("person people time date day place places way reason number")
"""Nouns that behind `which` and `what` mean no more than `who`, `when` ..."""

PHRASES = {
    ("pick", "up"): "collect", ("hand", "in"): "submit", ("hand", "back"): "return", ("give", "back"): "return",
    ("bring", "back"): "return", ("send", "back"): "return", ("take", "back"): "return", ("fill", "in"): "complete",
    ("fill", "out"): "complete", ("set", "up"): "configure", ("switch", "on"): "enable", ("turn", "on"): "enable",
    ("switch", "off"): "disable", ("turn", "off"): "disable", ("put", "off"): "postpone", ("call", "off"): "cancel",
    ("carry", "out"): "perform", ("throw", "away"): "discard", ("work", "out"): "calculate", ("sort", "out"): "resolve",
    ("cut", "down"): "reduce", ("back", "up"): "backup", ("sign", "up"): "register",
    ("log", "in"): "login", ("log", "on"): "login", ("sign", "in"): "login", ("log", "out"): "logout",
    ("log", "off"): "logout", ("sign", "out"): "logout",
}  # fmt: skip
"""(stem of a verb, its particle) -> a verb that means the same."""

IMPERSONAL_MOODS = _words(
    "allowed permitted required obliged obligated mandatory compulsory obligatory necessary possible able"
)
"""Adjectives that behind `is it` and `am I` express a mood only."""
WAY_NOUNS = _words("way ways step steps procedure process reason reasons")
"""Nouns that behind *what is the* only ask how or why."""

MUST = re.compile(
    r"\b(?:must|have to|has to|had to|need to|needs to|required|requires|obliged|obligated|mandatory|compulsory|"
    r"obligatory|necessary|mustn't|gotta)\b"
)
SHOULD = re.compile(r"\b(?:should|ought|recommended|advisable|supposed|shouldn't|better to)\b")
MAY = re.compile(
    r"\b(?:can|could|may|might|allowed|permitted|possible|able|ok to|okay to|fine to|alright to|can't|cannot|couldn't|"
    r"permissible)\b"
)
WILL = re.compile(r"\b(?:will|shall|won't|going to)\b")
WOULD = re.compile(r"\b(?:would|wouldn't)\b")
MOODS = {"must": MUST, "should": SHOULD, "may": MAY, "will": WILL, "would": WOULD}
MOOD_STARTS = {name: _begin(way) for name, way in MOODS.items()}
"""Mood -> pattern of the first words of its expressions."""
PAST = _words("did was were had didn't wasn't weren't hadn't")
PRESENT = _words("do does is are am don't doesn't isn't aren't")
PERFECT = _words("have has haven't hasn't")

HE = _words("he him his himself")
SHE = _words("she her hers herself")
THIRD = HE | SHE
YOU = _words("you your yours")
THEY = _words("they them their theirs themselves")
FIRST = _words("i me my mine myself we us our ours i'm i've i'd i'll we're we've")

RELATIONS = _classes(
    """to: to into onto toward towards; from: from; in: in inside within; on: on upon; at: at; of: of; for: for;
    with: with; by: by via using through per; about: about regarding concerning; before: before; after: after
    following once afterwards; during: during while throughout amid; until: until till; since: since; because:
    because; despite: despite although though; if: if whenever; against: against; as: as; like: like unlike; than:
    than versus vs; between: between among amongst; near: near beside beyond; behind: behind; below: below under
    beneath underneath; above: above over; across: across around along; outside: outside; without: without"""
)
"""Preposition -> class of the relation that it expresses."""
OF_PHRASES = {"because": "because", "instead": "instead", "out": "from", "ahead": "before", "front": "front",
            "behalf": "behalf", "lieu": "instead", "means": "by"}  # fmt: skip
TO_PHRASES = {"due": "because", "prior": "before", "next": "near", "thanks": "because", "close": "near",
            "owing": "because", "subsequent": "after"}  # fmt: skip
INFINITIVE = _words(
    """procedure process want like need have has had way ways step steps possible allowed able how order required used
    try mandatory permitted obliged necessary going supposed compulsory obligatory wish plan decide forget free ought
    need needs needed do takes take who what"""
)
"""Words behind which `to` introduces a verb."""


def _pairs(text: str) -> frozenset[frozenset[str]]:
    return frozenset(frozenset(pair.split("/")) for pair in text.split())


AGREEING = _pairs(
    """of/in of/on of/at of/about for/about about/on in/at during/in during/on during/at
    across/in than/above than/below"""
)
"""Pairs of relations that may mean the same."""
AGREEING_IN_TIME = _pairs(
    """of/in of/on of/at of/for of/during during/in during/on during/at in/at on/at until/by than/above than/below"""
)
"""Pairs of relations that may mean the same of times and of amounts with units."""
ALTERNATING = _words(
    """apply applies applied applying entitled eligible qualify qualifies qualified access belong belongs related
    connect connected connecting compare compared link linked subscribe subscribed subscription limit limits rule
    rules"""
)
"""Words behind which `to`, `for` and `with` mean the same."""
LOOSE = _words("of by")
"""Relations that disappear where a noun becomes a verb, or a passive becomes active."""
PARTICLES = _words("up down off out on in over through about")

LIGHT_VERBS = _classes(
    """have: have has had having; get: get gets got getting receive receives received receiving obtain obtains
    obtained obtaining; give: give gives gave given giving; need: need needs needed needing; want: want wants wanted
    wanting; show: show shows showed shown showing; help: help helps helped helping; know: know knows knew known;
    use: use uses used using; follow: follow follows followed following; find: find finds found finding; take: take
    takes took taken taking; apply: apply applies applied applying; tell: tell tells told; explain: explain explains
    explained; work: work works worked working; let: let lets letting; like: likes liked"""
)
"""Light verb -> its class. They matter only where no other verb stands."""
ACT_VERBS = LIGHT_VERBS | _classes(
    "refuse: refuse refuses refused refusing; fail: fail fails failed; lack: lack lacks lacking"
)
"""Verbs that are no content words -> their stems."""


IMPLIED = _classes(
    """when duration rate: time times date dates day days period; where: place places; who: person people someone
    somebody; why: reason reasons cause; how: steps process procedure; count amount measure: number amount much price
    cost costs; kind: kind type sort; any: allow allowed permitted entitled able possible available
    availability needed necessary required requirement obligatory compulsory mandatory obliged have take takes get
    receive find found use used using apply applies work works done thing things there
    follow followed"""
)
"""Word -> the foci that imply it (`kind`: which thing; `any`: every focus)."""
JOINING = _words(
    """yes sure okay ok thus however hence therefore additionally moreover furthermore alternatively simply following
    above mentioned such respective respectively corresponding"""
)
"""Words that join, and add nothing to a question."""
AMOUNTS = frozenset({"count amount measure"})
"""Values of `IMPLIED` whose words name another thing behind a noun: a *permit number*."""
MANNER_WORDS = _words(
    """easily quickly properly correctly successfully effectively efficiently conveniently convenient straightforward
    proper"""
)
"""Words of manner, which `how` implies."""
PRECISE = _words("exact exactly precise precisely actual actually basically ever")

ORDINALS = _words("first second third fourth fifth sixth seventh eighth ninth tenth single double triple half")
NO_PLACE = AUXILIARIES | _words("hi hello hey")
"""Words next to which `there` is no place."""
COUNTED = _words(
    """first second third single both couple half double triple twice too also here being or dozen quarter only alone"""
)
DEGREES = _words(
    """cheap fast slow large small big long short high low old new young early late strong weak heavy light near easy
    hard safe quick rich poor wide narrow deep thick thin warm cold hot clean loud quiet close great simple rare full
    tall bright dark soft tight loose fresh dry wet busy sharp smooth healthy dear costly"""
)
UNEVEN = {"better": ("good", "more"), "best": ("good", "most"), "worse": ("bad", "more"), "worst": ("bad", "most"),
          "further": ("far", "more"), "farther": ("far", "more"), "furthest": ("far", "most"), "elder": ("old", "more"),
          "eldest": ("old", "most")}  # fmt: skip

READABLE = _words(
    """the how what which when where who whom whose why does did can could should would may might must your you my our
    this that these those with from and are be been being it its it's there not don't doesn't can't isn't if is of to
    i i'm any please their they has have was were will by or we me do for"""
)
"""Function words by which a text shows that it is English."""
ENGLISH_ONLY = READABLE - _words("is of to i was were will we me do for by or be are has have it can die man not")
"""Those of them that are not common in another language known here."""
