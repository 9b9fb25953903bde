"""One spelling for words that are written in several ways: British and American, contractions, common slips. Pure.

English only. A slip is mended where the other question has the word and one of the two is known: letters that changed
places, or one that is doubled or is not. A missing or a wrong letter makes another word as often, so it stays one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

WRITTEN = {
    "cant": "can't", "dont": "don't", "doesnt": "doesn't", "didnt": "didn't", "isnt": "isn't", "arent": "aren't",
    "wasnt": "wasn't", "werent": "weren't", "havent": "haven't", "hasnt": "hasn't", "hadnt": "hadn't",
    "wouldnt": "wouldn't", "couldnt": "couldn't", "shouldnt": "shouldn't", "mustnt": "mustn't", "whats": "what's",
    "hows": "how's", "wheres": "where's", "whos": "who's", "whens": "when's", "im": "i'm", "ive": "i've",
    "youre": "you're", "theyre": "they're", "u": "you", "ur": "your", "pls": "please", "plz": "please", "thx": "thanks",
    "teh": "the", "waht": "what", "hwat": "what", "thier": "their", "gonna": "going", "wanna": "want", "w/o": "without",
    "w/": "with", "ain't": "isn't", "e-mail": "email", "e-mails": "emails", "wi-fi": "wifi", "on-line": "online",
    "off-line": "offline", "co-worker": "coworker", "co-workers": "coworkers",
}  # fmt: skip
"""As written -> as it is read; negations are told from it, so a lost apostrophe does not lose one."""
_OUR = re.compile(r"^(col|fav|lab|behavi|neighb|hon|harb|hum|rum|sav|flav|vap|endeav|arm)our")
_ISE = re.compile(r"^(\w{4,})(is|ys)(e|ed|es|ing|ation|ations|er|ers)$")
_NOT_ISE = re.compile(
    r"^(adv|exerc|prom|otherw|prec|prem|enterpr|surpr|franch|rev|superv|compr|expert|merchand|disgu|comprom|pract|"
    r"likew|conc|dev|telev|exc|treat|paradise|improv|advert$|no|ra|wi)"
)
_DOUBLED = re.compile(
    r"^(cance|trave|labe|mode|leve|fue|signa|tota|dia|channe|counse|contro|tunne|pane|pedal)ll(ed|ing|er|ers|or)$"
)
_OTHERWISE = {
    "centre": "center", "centres": "centers", "theatre": "theater", "theatres": "theaters", "fibre": "fiber",
    "licence": "license", "licences": "licenses", "defence": "defense", "offence": "offense", "catalogue": "catalog",
    "catalogues": "catalogs", "dialogue": "dialog", "enrolment": "enrollment", "instalment": "installment",
    "instalments": "installments", "fulfil": "fulfill", "enrol": "enroll", "programme": "program", "programmes":
    "programs", "grey": "gray", "tyre": "tire", "tyres": "tires", "jewellery": "jewelry", "plough": "plow",
    "aeroplane": "airplane", "judgement": "judgment", "ageing": "aging", "storey": "story", "kerb": "curb",
    "pyjamas": "pajamas", "cosy": "cozy", "sceptical": "skeptical", "mould": "mold", "skilful": "skillful",
    "transferred": "transfer", "transferring": "transfer",
}  # fmt: skip


def _past(text: str) -> dict[str, str]:
    """`verb: forms; verb: forms` as form -> verb."""
    pairs = (part.split(":") for part in text.split(";"))
    return {form: verb.strip() for verb, forms in pairs for form in forms.split()}


PAST_FORMS = _past(
    """pay: paid payed; send: sent; buy: bought; take: taken took; give: given gave; see: seen saw; write: written
    wrote; choose: chosen chose; hold: held; keep: kept; make: made; meet: met; lend: lent; lose: lost; tell: told;
    teach: taught; build: built; break: broken broke; steal: stolen stole; drive: driven drove; know: known knew;
    show: shown; speak: spoken spoke; withdraw: withdrawn withdrew; freeze: frozen froze; wear: worn wore; sell:
    sold; bring: brought; catch: caught; lead: led; begin: begun began; fly: flown flew; forget: forgotten forgot;
    hide: hidden hid; ride: ridden rode; shake: shaken shook; spend: spent; swim: swum swam; tear: torn tore; throw:
    thrown threw; wake: woken woke; win: won; eat: eaten ate; draw: drawn drew; grow: grown grew; sleep: slept; feel:
    felt; fight: fought; hear: heard; sing: sung sang; sink: sunk sank; stick: stuck; strike: struck; swear: sworn
    swore; think: thought; understand: understood; go: gone went; come: came; run: ran; rise: risen rose; fall:
    fallen fell; bite: bitten bit; blow: blown blew; feed: fed; dig: dug; deal: dealt; mean: meant; seek: sought;
    shoot: shot; sit: sat; stand: stood; sweep: swept; undo: undone undid; redo: redone redid; overtake: overtaken
    overtook; find: found; say: said; lay: laid; bind: bound; become: became; bend: bent; lie: lain; rebuild: rebuilt;
    resell: resold; repay: repaid; rewrite: rewritten rewrote; retake: retaken retook; spin: spun; light: lit"""
)
"""Past forms of verbs that have another stem."""
UNCHANGED = frozenset(
    ("reset", "set", "cut", "put", "read", "hit", "shut", "split", "spread", "cast", "upset", "hurt", "let", "preset")
)
"""Verbs of which a participle has no form of its own."""


def past_form(word: str) -> bool:
    """Whether a word is, by its form, a past or a participle."""
    return (word.endswith("ed") and len(word) > 4) or word in PAST_FORMS


_TWICE = re.compile(r"(.)\1")


def spelled(word: str) -> str:
    """A lower-case word in the spelling by which others are compared with it."""
    word = PAST_FORMS.get(word) or _OTHERWISE.get(word, word)
    word = _OUR.sub(r"\1or", word)
    word = _DOUBLED.sub(r"\1l\2", word)
    found = _ISE.match(word)
    return f"{found[1]}{found[2][0]}z{found[3]}" if found and not _NOT_ISE.match(word) else word


def slips(words: Sequence[str], others: Sequence[str], known: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """The places of words of which one is the other with a slip; of long ones also where neither is known."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, word in enumerate(others):
        if len(word) >= SHORTEST:
            places.setdefault(_key(word), []).append(place)
    for place, word in enumerate(words if places else ()):
        for other in places.get(_key(word), ()) if len(word) >= SHORTEST else ():
            instead = others[other]
            if word != instead and _one_known(word, instead, known) and _slipped(word, instead):
                yield place, other


SHORTEST = 5
"""Letters of a word in which a slip is looked for."""
LONG = 8
"""Letters from which on two words are seldom one another's slip."""


def _one_known(one: str, other: str, known: Callable[[str], bool]) -> bool:
    first, second = known(one), known(other)
    return first != second or (not first and min(len(one), len(other)) >= LONG)


@lru_cache(maxsize=8192)
def _key(word: str) -> tuple[str, str]:
    return word[0], "".join(sorted(_TWICE.sub(r"\1", word)))


def _slipped(one: str, other: str) -> bool:
    one, other = _TWICE.sub(r"\1", one), _TWICE.sub(r"\1", other)
    if one == other:
        return True
    differ = [place for place, (x, y) in enumerate(zip(one, other, strict=True)) if x != y]
    return len(differ) == 2 and differ[1] == differ[0] + 1
