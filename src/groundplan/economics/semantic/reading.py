"""What a request says, read once: words, numbers, negations, names, units, times, quantities, language. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.clause import Clause, clause
from groundplan.economics.semantic.grammar import LASTING, PHRASES
from groundplan.economics.semantic.question import FAR, asked_by, said_around
from groundplan.economics.semantic.spelling import WRITTEN, spelled

_WORD = re.compile(
    r"`[^`]+`|\"[^\"]{1,80}\"|\bw/o?(?=\s)|\b(?:[eE]-mails?|[wW]i-[fF]i|[oO](?:n|ff)-line|[cC]o-workers?)\b|"
    r"\d+(?:[.,:/-]\d+)*(?:st|nd|rd|th)?|[^\W\d_][\w]*(?:['’][^\W\d_]+)*(?:[._]\w+)*(?:\(\))?|[$€£¥%]"
)
_NUMBER = re.compile(r"^\d[\d.,]*$")
_JOINED = re.compile(r"(\d)([a-zA-Z]{1,3})\b")
_PAIRS = {
    ("how", "many"): "how-many", ("how", "much"): "how-much", ("how", "long"): "how-long",
    ("how", "often"): "how-often", ("how", "old"): "how-old", ("how", "far"): "how-far", ("at", "least"): "at-least",
    ("at", "most"): "at-most", ("up", "to"): "up-to", ("have", "to"): "have-to", ("the", "most"): "the-most",
}  # fmt: skip
_FIRST = frozenset(first for first, _ in _PAIRS)
_MANY = ("how", "many")
_IN_ORDER_TO = ("in", "order", "to")
_IN_CHARGE_OF = ("in", "charge", "of")
_LANGUAGES_OF = {
    word: tuple(name for name, words in v.LANGUAGES.items() if word in words.split())
    for word in " ".join(v.LANGUAGES.values()).split()
}
"""Common word -> the languages that have it."""
_SCRIPTS = (
    ("cyrillic", "Ѐ", "ӿ"), ("greek", "Ͱ", "Ͽ"), ("hebrew", "֐", "׿"), ("arabic", "؀", "ۿ"),
    ("devanagari", "ऀ", "ॿ"), ("thai", "฀", "๿"), ("hangul", "가", "힯"), ("kana", "぀", "ヿ"), ("han", "一", "鿿"),
)  # fmt: skip
_TURNS = frozenset({"to", "from", "than", "into", "before", "after", "versus", "vs"})
"""Words around which the order of what is said matters."""
_ARTICLES = frozenset({"a", "an", "the", "your", "my", "our", "its", "their", "it", "them"})
_DATES = {
    name[:3]: name[:3]
    for name in (
        "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
        "december", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
    )
}  # fmt: skip
"""Names that are known by three letters."""
_NO_NAMES = frozenset({"ok", "faq", "asap", "fyi"})
_CAPITAL_TIMES = frozenset({"may", "march"})
_BEFORE = " \t\"'*-•(#>`"
"""May stand between the end of a sentence and the first word of the next one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One text. Words are lower case; `stems` are content words without endings, in order."""

    text: str
    words: tuple[str, ...]
    stems: tuple[str, ...]
    spoken: tuple[str, ...]
    """The words that `stems` are of."""
    places: tuple[tuple[int, int], ...]
    """Where each of them stands in `text`: its first character, and the one after its last."""
    told: tuple[int, ...]
    """The same in `words`."""
    apart: frozenset[int]
    """Places in `words` of what is said around the request, and of verbs' own particles."""
    numbers: frozenset[str]
    vague: frozenset[str]
    """Numbers that may be no numbers (`one`)."""
    negations: int
    denials: int
    """Verbs that deny what follows: prevent, avoid, remove."""
    nothings: int
    """Of the negations those that speak of a thing: nothing, without."""
    names: frozenset[str]
    """Capitalised words within a sentence (its first word is none), identifiers, quoted text; lower case."""
    codes: frozenset[str]
    """Of them identifiers and quoted text, exactly as written."""
    units: frozenset[str]
    times: frozenset[str]
    quantities: frozenset[str]
    asks: frozenset[str]
    obligations: frozenset[str]
    language: str
    """`en`, `de` ..., a script, or empty where that cannot be told."""
    foreign: frozenset[str]
    """Function words of other languages than English."""
    turns: tuple[tuple[str, frozenset[str], frozenset[str]], ...]
    """(to | from | than ..., the three stems before it, the three after it)"""
    clause: Clause
    """How it is put."""


def read(text: str) -> Reading:
    """Read a text of any length and language."""
    put = [match.end(1) + number for number, match in enumerate(_JOINED.finditer(text))]
    spaced = _JOINED.sub(r"\1 \2", text) if put else text
    matches = list(_WORD.finditer(spaced))
    found = [match.group() for match in matches]
    lower = [word.lower().replace("’", "'") for word in found]
    words = tuple(WRITTEN.get(word, word) for word in lower)
    joined = [*words, *_joined(words)]
    # elsewhere a capital says something
    first = frozenset(
        place for place, m in enumerate(matches) if found[place][0].isupper() and _begins(spaced, m.start())
    )
    names, codes = _names(found, first)
    if not {"at-most", "at-least", "the-most"}.isdisjoint(joined):
        joined = [word for word in joined if word not in ("most", "least")]
    around = said_around(words)
    without = around | asked_by(words)
    told = [
        place
        for place, w in enumerate(words)
        if _told(w) and place not in without and words[place - 1 : place + 2] != _IN_ORDER_TO
    ]
    breaks = _breaks(spaced, matches)
    told, spoken, spent = _phrases(words, told, breaks)
    stems = tuple(map(stem, spoken))
    numbers, vague = _numbers(words)
    return Reading(
        text=text,
        words=words,
        stems=stems,
        spoken=spoken,
        places=tuple(_place(matches[place], put) for place in told),
        told=tuple(told),
        apart=around | spent,
        numbers=numbers,
        vague=vague,
        # `No, ...` answers a question; what follows says it again
        negations=_count(v.NEGATIONS, words[text[:3].lower() == "no," :]),
        denials=_count(v.DENIALS, words),
        nothings=_count(v.NOTHINGS, words),
        names=names,
        codes=codes,
        units=frozenset(
            v.UNIT_NAMES.get(w, w)
            for place, w in enumerate(() if _MEASURES.isdisjoint(words) else words)
            # `how many days` asks how long
            if w in _MEASURES and not (w in LASTING and words[max(0, place - 2) : place] == _MANY)
        ),
        times=_times(found, lower, first),
        quantities=_named(_QUANTIFIERS, joined),
        asks=_named(v.ASKS, joined),
        obligations=_named(v.OBLIGATIONS, joined),
        language=language_of(text, words),
        foreign=frozenset(words) & v.NOT_ENGLISH,
        turns=() if _TURNS.isdisjoint(words) else _turns(words, _breaks(spaced, matches, _STOPS)),
        clause=clause(text, words, _by_word(words, told, stems), breaks, around, spent),
    )


def _count(those: frozenset[str], words: Sequence[str]) -> int:
    return 0 if those.isdisjoint(words) else sum(word in those for word in words)


def _named(names: Mapping[str, str], words: Sequence[str]) -> frozenset[str]:
    return frozenset(names[word] for word in words if word in names)


_MEASURES = v.UNITS | v.UNIT_NAMES.keys()
_QUANTIFIERS = {word: share for word, share in v.QUANTIFIERS.items() if share}
_STOPS = frozenset(".?!\n")
_MARKS = frozenset(",.;:?!()\n–—")


def _breaks(text: str, matches: Sequence[re.Match[str]], marks: frozenset[str] = _MARKS) -> list[bool]:
    """Whether a mark of punctuation stands before each word."""
    if not matches or marks.isdisjoint(text[: matches[-1].start()]):
        return [False] * len(matches)
    found, end = list[bool](), 0
    for match in matches:
        between = text[end : match.start()]
        found.append(between != " " and not marks.isdisjoint(between))
        end = match.end()
    return found


def _phrases(
    words: Sequence[str], told: Sequence[int], breaks: Sequence[bool]
) -> tuple[list[int], tuple[str, ...], frozenset[int]]:
    """Places of content, what is said there (*pick it up* is *collect*), and the places of verbs' own particles."""
    spoken, spent = {place: words[place] for place in told}, set[int]()
    for place in told:
        if words[place] == "charge" and words[place - 1 : place + 2] == _IN_CHARGE_OF:
            spoken[place] = "responsible"
            spent.add(place - 1)
        root = stem(words[place])
        reach = range(place + 1, min(place + _REACH, len(words))) if root in _PHRASED else ()
        for after in reach:
            if breaks[after]:
                break
            if (root, words[after]) in PHRASES:
                spoken[place] = PHRASES[root, words[after]]
                spent.add(after)
                break
    kept = [place for place in told if place not in spent]
    return kept, tuple(spoken[place] for place in kept), frozenset(spent)


_PHRASED = frozenset(root for root, _ in PHRASES)
_REACH = 6
"""Words within which a verb's particle stands behind it."""


def _by_word(words: Sequence[str], told: Sequence[int], stems: Sequence[str]) -> list[str]:
    found = [""] * len(words)
    for place, its in zip(told, stems, strict=True):
        found[place] = its
    return found


def _joined(words: Sequence[str]) -> Iterator[str]:
    """Words that say one thing together; *how many days*, *how much time* ask how long."""
    for place, pair in enumerate(pairwise(words)):
        if pair[0] in _FIRST and pair in _PAIRS:
            lasts = pair[0] == "how" and pair[1] in ("many", "much") and words[place + 2 : place + 3]
            yield (
                "how-long"
                if lasts and lasts[0] in LASTING and words[place + 3 : place + 4] != ("of",)
                else _PAIRS[pair]
            )


def _place(found: re.Match[str], put: Sequence[int]) -> tuple[int, int]:
    """Where a word stands in the text as it was before a space was put in at each of these places."""
    begin, end = found.span()
    before = bisect_left(put, begin)
    return begin - before, end - before


_ENDINGS = ("ization", "isation", "ational", "fulness", "ations", "ation", "ments", "ment", "ings", "ing", "ities",
            "ity", "ies", "edly", "ed", "ers", "er", "ors", "or", "ely", "ly", "es", "s", "al", "e", "ion")  # fmt: skip


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """A word without its endings, so that its forms are alike; short words stay as they are."""
    word = spelled(word.removesuffix("'s").removesuffix("()"))
    for _ in range(2):  # documented, as document
        word = _shorter(word)
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word[:-1] + "y" if word.endswith("i") and len(word) > 3 else word


def _shorter(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and (ending != "s" or word[-2] != "s"):
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


def _is_number(word: str) -> bool:
    return word[0].isdigit() or word in v.NUMBER_WORDS


def _numbers(words: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    sure: set[str] = set()
    vague: set[str] = set()
    for word in words:
        if word[0].isdigit():
            plain = word.rstrip("stndrh") if word[-1].isalpha() else word
            if _NUMBER.match(plain):
                plain = plain.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", plain) else plain
                plain = plain.rstrip(".,")
                if "." in plain and plain.count(".") == 1:
                    plain = plain.rstrip("0").rstrip(".")
            sure.add(plain)
        elif word in v.NUMBER_WORDS:
            (vague if word in v.VAGUE_NUMBERS else sure).add(f"{v.NUMBER_WORDS[word]:g}")
    return frozenset(sure), frozenset(vague)


def _begins(text: str, place: int) -> bool:
    """Whether a sentence or a line begins there, so that a capital says nothing."""
    place -= 1
    while place >= 0 and text[place] in _BEFORE:
        place -= 1
    return place < 0 or text[place] in ".?!…:\n"


def _names(found: Sequence[str], first: frozenset[int]) -> tuple[frozenset[str], frozenset[str]]:
    """`first`: the places of words with a capital that begin a sentence."""
    names, codes = set(), set()
    for place, word in enumerate(found):
        if word.isalpha() and word.islower():
            continue
        bare = word.strip('`"').removesuffix("()")
        inner_capital = any(map(str.isupper, bare[1:]))
        coded = word[0] == "`" or "_" in word or word.endswith("()") or ("." in word and not word[0].isdigit())
        mixed = any(map(str.isdigit, bare)) and any(map(str.isalpha, bare)) and not bare[0].isdigit()
        if coded or mixed or word[0] == '"':
            codes.add(bare.lower().strip())
            names.add(bare.lower().strip())
        elif word.lower() not in _NO_NAMES and (
            inner_capital or (place not in first and word[0].isupper() and word.lower() not in v.STOP)
        ):
            names.add(WRITTEN.get(bare.lower(), bare.lower()).removesuffix("'s"))
    return frozenset(names), frozenset(codes)


def _times(found: Sequence[str], lower: Sequence[str], first: frozenset[int]) -> frozenset[str]:
    times = set[str]()
    if v.TIMES.isdisjoint(lower) and not any(low.endswith("'s") for low in lower):
        return frozenset()
    for place, low in enumerate(lower):
        if low not in v.TIMES:
            low = found[place].lower().removesuffix("'s") if low.endswith("'s") else ""
        if low and low in v.TIMES and (low not in _CAPITAL_TIMES or (found[place][0].isupper() and place not in first)):
            short = low[:3] if low[:3] in _DATES and low.startswith(_DATES[low[:3]]) else low
            times.add(v.TIME_NAMES.get(low, short))
    return frozenset(times)


def _turns(words: Sequence[str], ends: Sequence[bool]) -> tuple[tuple[str, frozenset[str], frozenset[str]], ...]:
    stems = [stem(word) if _content(word) else "" for word in words]
    found = []
    for place, word in enumerate(words):
        if word in _TURNS and not _of_a_verb(words, place):
            least, most = max(0, place - FAR), min(len(words), place + 1 + FAR)
            first = next((i for i in range(place, least, -1) if ends[i]), least)
            last = next((i for i in range(place + 1, most) if ends[i]), most)
            found.append((word, _some(reversed(stems[first:place])), _some(stems[place + 1 : last])))
    return tuple(found)


def _of_a_verb(words: Sequence[str], place: int) -> bool:
    """Whether the `to` there stands before a verb: what follows has its own article then, as in *to load a table*."""
    first, second = (*words[place + 1 : place + 3], "", "")[:2]
    return words[place] == "to" and second in _ARTICLES and _content(first) and "from" not in words[:place][-4:]


def _some(stems: Iterable[str]) -> frozenset[str]:
    return frozenset(islice(filter(None, stems), 3))


def _content(word: str) -> bool:
    return word not in v.STOP and word not in v.NEGATIONS


@lru_cache(maxsize=8192)
def _told(word: str) -> bool:
    """Whether it may be a word of content by itself: no number, and nothing quoted."""
    return _content(word) and not _is_number(word) and word[0] not in '`"$€£¥%'


def language_of(text: str, words: Sequence[str]) -> str:
    """The language or script of a text; empty where a few words do not tell."""
    for name, first, last in () if text.isascii() else _SCRIPTS:
        if sum(first <= letter <= last for letter in text) * 3 > len(text):
            return name
    counts = Counter(name for word in words if word in _LANGUAGES_OF for name in _LANGUAGES_OF[word])
    most, after = (*sorted(counts.values(), reverse=True)[:2], 0, 0)[:2]
    return max(counts, key=counts.__getitem__) if most >= 2 and most > 1.3 * after else ""
