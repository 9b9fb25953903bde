"""Normalises words that are written in several ways: British and American, contractions, common misspellings. Pure.

English only. A misspelling is recognised where the other question has the word and exactly one of both is known: two
adjacent letters swapped, or a letter doubled or not. A missing or wrong letter as often makes another word, so it is
none.
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
"""As written -> as read. Negations are found after this, so that a lost apostrophe does not lose one."""
_OUR = re.compile(r"^(col|fav|lab|behavi|neighb|hon|harb|hum|rum|sav|flav|vap|endeav|arm)our")
_ISE = re.compile(r"^(\w{4,})(is|ys)(e|ed|es|ing|ation|ations|er|ers)$")
_NOT_ISE = re.compile(
    r"^(adv|exerc|prom|otherw|prec|prem|enterpr|surpr|franch|rev|superv|compr|expert|merchand|disgu|comprom|pract|"
    r"likew|conc|dev|telev|exc|treat|paradise|improv|advert$|no|ra|wi)"
)
_DOUBLED = re.compile(
    r"^(cance|trave|labe|mode|leve|fue|signa|tota|dia|channe|counse|contro|tunne|pane|pedal)ll(ed|ing|er|ers|or)$"
)
_BRITISH = {
    "centre": "center", "centres": "centers", "theatre": "theater", "theatres": "theaters", "fibre": "fiber",
    "licence": "license", "licences": "licenses", "defence": "defense", "offence": "offense", "catalogue": "catalog",
    "catalogues": "catalogs", "dialogue": "dialog", "enrolment": "enrollment", "instalment": "installment",
    "instalments": "installments", "fulfil": "fulfill", "enrol": "enroll", "programme": "program", "programmes":
    "programs", "grey": "gray", "tyre": "tire", "tyres": "tires", "jewellery": "jewelry", "plough": "plow",
    "aeroplane": "airplane", "judgement": "judgment", "ageing": "aging", "storey": "story", "kerb": "curb",
    "pyjamas": "pajamas", "cosy": "cozy", "sceptical": "skeptical", "mould": "mold", "skilful": "skillful",
    "transferred": "transfer", "transferring": "transfer",
}  # fmt: skip


def _past_forms(text: str) -> dict[str, str]:
    """`verb: forms; verb: forms` as form -> verb."""
    pairs = (part.split(":") for part in text.split(";"))
    return {form: verb.strip() for verb, forms in pairs for form in forms.split()}


PAST_FORMS = _past_forms(
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
"""Irregular past form or participle -> verb."""
UNCHANGED = frozenset(
    ("reset", "set", "cut", "put", "read", "hit", "shut", "split", "spread", "cast", "upset", "hurt", "let", "preset")
)
"""Verbs whose participle equals the infinitive."""


def is_past_form(word: str) -> bool:
    """Whether a word has the form of a past tense or a participle."""
    return (word.endswith("ed") and len(word) > 4) or word in PAST_FORMS


_DOUBLE_LETTER = re.compile(r"(.)\1")


def normalize_spelling(word: str) -> str:
    """The spelling by which a lower-case word is compared with others; an irregular past form becomes its verb."""
    word = PAST_FORMS.get(word) or _BRITISH.get(word, word)
    word = _OUR.sub(r"\1or", word)
    word = _DOUBLED.sub(r"\1l\2", word)
    found = _ISE.match(word)
    return f"{found[1]}{found[2][0]}z{found[3]}" if found and not _NOT_ISE.match(word) else word


def misspelling_places(
    words: Sequence[str], others: Sequence[str], known: Callable[[str], bool]
) -> Iterator[tuple[int, int]]:
    """Pairs of places of words of which one is a misspelling of the other. Exactly one must be known; of long words
    perhaps neither."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, word in enumerate(others):
        if len(word) >= MIN_SLIP_LENGTH:
            places.setdefault(_letters_key(word), []).append(place)
    for place, word in enumerate(words if places else ()):
        for other in places.get(_letters_key(word), ()) if len(word) >= MIN_SLIP_LENGTH else ():
            instead = others[other]
            if word != instead and _is_plausible_slip(word, instead, known) and _is_one_slip_away(word, instead):
                yield place, other


MIN_SLIP_LENGTH = 5
"""Letters from which on a word may be a misspelling."""
LONG_WORD = 8
"""Letters from which on two different words are seldom one misspelling apart."""


def _is_plausible_slip(one: str, other: str, known: Callable[[str], bool]) -> bool:
    first, second = known(one), known(other)
    return first != second or (not first and min(len(one), len(other)) >= LONG_WORD)


@lru_cache(maxsize=8192)
def _letters_key(word: str) -> tuple[str, str]:
    return word[0], "".join(sorted(_DOUBLE_LETTER.sub(r"\1", word)))


def _is_one_slip_away(one: str, other: str) -> bool:
    one, other = _DOUBLE_LETTER.sub(r"\1", one), _DOUBLE_LETTER.sub(r"\1", other)
    if one == other:
        return True
    differ = [place for place, (x, y) in enumerate(zip(one, other, strict=True)) if x != y]
    return len(differ) == 2 and differ[1] == differ[0] + 1
