"""Reads a text once for all comparisons: words, numbers, negations, names, units, times, quantities, language. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.clause import Clause, read_clause
from groundplan.economics.semantic.grammar import DURATION_UNITS, PHRASES
from groundplan.economics.semantic.question import MAX_SCAN, polite_places, question_phrase_places
from groundplan.economics.semantic.spelling import WRITTEN, normalize_spelling

_WORD = re.compile(
    r"`[^`]+`|\"[^\"]{1,80}\"|\bw/o?(?=\s)|\b(?:[eE]-mails?|[wW]i-[fF]i|[oO](?:n|ff)-line|[cC]o-workers?)\b|"
    r"\d+(?:[.,:/-]\d+)*(?:st|nd|rd|th)?|[^\W\d_][\w]*(?:['’][^\W\d_]+)*(?:[._]\w+)*(?:\(\))?|[$€£¥%]"
)
_NUMBER = re.compile(r"^\d[\d.,]*$")
_NUMBER_AND_UNIT = re.compile(r"(\d)([a-zA-Z]{1,3})\b")
_COMPOUNDS = {
    ("how", "many"): "how-many", ("how", "much"): "how-much", ("how", "long"): "how-long",
    ("how", "often"): "how-often", ("how", "old"): "how-old", ("how", "far"): "how-far", ("at", "least"): "at-least",
    ("at", "most"): "at-most", ("up", "to"): "up-to", ("have", "to"): "have-to", ("the", "most"): "the-most",
}  # fmt: skip
_COMPOUND_STARTS = frozenset(first for first, _ in _COMPOUNDS)
_HOW_MANY = ("how", "many")
_IN_ORDER_TO = ("in", "order", "to")
_IN_CHARGE_OF = ("in", "charge", "of")
_LANGUAGES_BY_WORD = {
    word: tuple(name for name, words in v.LANGUAGES.items() if word in words.split())
    for word in " ".join(v.LANGUAGES.values()).split()
}
"""Common word -> the languages that have it."""
_SCRIPTS = (
    ("cyrillic", "Ѐ", "ӿ"), ("greek", "Ͱ", "Ͽ"), ("hebrew", "֐", "׿"), ("arabic", "؀", "ۿ"),
    ("devanagari", "ऀ", "ॿ"), ("thai", "฀", "๿"), ("hangul", "가", "힯"), ("kana", "぀", "ヿ"), ("han", "一", "鿿"),
)  # fmt: skip
_DIRECTIONAL = frozenset({"to", "from", "than", "into", "before", "after", "versus", "vs"})
"""Words that reverse the meaning when what stands before and behind them is swapped."""
_ARTICLES = frozenset({"a", "an", "the", "your", "my", "our", "its", "their", "it", "them"})
_DATES = {
    name[:3]: name[:3]
    for name in (
        "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
        "december", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
    )
}  # fmt: skip
"""Months and weekdays, which are abbreviated to three letters."""
_NOT_NAMES = frozenset({"ok", "faq", "asap", "fyi"})
_CAPITAL_TIMES = frozenset({"may", "march"})
_SENTENCE_PADDING = " \t\"'*-•(#>`"
"""Characters that may stand between the end of a sentence and the first word of the next one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One text. Words are lower case; `stems` are the content words without endings, in order."""

    text: str
    words: tuple[str, ...]
    stems: tuple[str, ...]
    content_words: tuple[str, ...]
    """The content words with endings, an entry for each of `stems`."""
    spans: tuple[tuple[int, int], ...]
    """(first character, one after the last) of each of them in `text`."""
    word_places: tuple[int, ...]
    """Index of each of them in `words`."""
    ignored: frozenset[int]
    """Indexes in `words` of polite phrases and of particles that are read with their verbs."""
    numbers: frozenset[str]
    vague: frozenset[str]
    """Numbers that may not count anything (`one`)."""
    negations: int
    denials: int
    """How many verbs deny what follows: prevent, avoid, remove."""
    nothings: int
    """How many of the negations are of a noun: nothing, without."""
    names: frozenset[str]
    """Capitalised words within a sentence (not its first word), identifiers and quoted text; lower case."""
    codes: frozenset[str]
    """Those of `names` that are identifiers or quoted text, as written but for case."""
    units: frozenset[str]
    times: frozenset[str]
    quantities: frozenset[str]
    question_words: frozenset[str]
    obligations: frozenset[str]
    language: str
    """`en`, `de` ..., the name of a script, or empty: unknown."""
    foreign: frozenset[str]
    """Function words of other languages than English."""
    directions: tuple[tuple[str, frozenset[str], frozenset[str]], ...]
    """(to | from | than ..., the three stems before it, the three stems after it)"""
    clause: Clause
    """The grammar of the text."""


def read(text: str) -> Reading:
    """Read a text of any length and language."""
    inserted = [match.end(1) + number for number, match in enumerate(_NUMBER_AND_UNIT.finditer(text))]
    spaced = _NUMBER_AND_UNIT.sub(r"\1 \2", text) if inserted else text
    matches = list(_WORD.finditer(spaced))
    found = [match.group() for match in matches]
    lower = [word.lower().replace("’", "'") for word in found]
    words = tuple(WRITTEN.get(word, word) for word in lower)
    with_compounds = [*words, *_compound_words(words)]
    # at the beginning of a sentence a capital does not tell a name
    sentence_starts = frozenset(
        place for place, m in enumerate(matches) if found[place][0].isupper() and _starts_sentence(spaced, m.start())
    )
    names, codes = _names(found, sentence_starts)
    if not {"at-most", "at-least", "the-most"}.isdisjoint(with_compounds):
        with_compounds = [word for word in with_compounds if word not in ("most", "least")]
    polite = polite_places(words)
    excluded = polite | question_phrase_places(words)
    content_places = [
        place
        for place, w in enumerate(words)
        if _is_content_word(w) and place not in excluded and words[place - 1 : place + 2] != _IN_ORDER_TO
    ]
    breaks = _punctuation_before(spaced, matches)
    content_places, content_words, absorbed = _merge_particles(words, content_places, breaks)
    stems = tuple(map(stem, content_words))
    numbers, vague = _numbers(words)
    return Reading(
        text=text,
        words=words,
        stems=stems,
        content_words=content_words,
        spans=tuple(_original_span(matches[place], inserted) for place in content_places),
        word_places=tuple(content_places),
        ignored=polite | absorbed,
        numbers=numbers,
        vague=vague,
        # `No, ...` answers a question; the negation follows
        negations=_count_words(v.NEGATIONS, words[text[:3].lower() == "no," :]),
        denials=_count_words(v.DENIALS, words),
        nothings=_count_words(v.NOTHINGS, words),
        names=names,
        codes=codes,
        units=frozenset(
            v.UNIT_NAMES.get(w, w)
            for place, w in enumerate(() if _MEASURES.isdisjoint(words) else words)
            # `how many days` asks how long
            if w in _MEASURES and not (w in DURATION_UNITS and words[max(0, place - 2) : place] == _HOW_MANY)
        ),
        times=_times(found, lower, sentence_starts),
        quantities=_map_words(_QUANTIFIERS, with_compounds),
        question_words=_map_words(v.ASKS, with_compounds),
        obligations=_map_words(v.OBLIGATIONS, with_compounds),
        language=language_of(text, words),
        foreign=frozenset(words) & v.NOT_ENGLISH,
        directions=()
        if _DIRECTIONAL.isdisjoint(words)
        else _directions(words, _punctuation_before(spaced, matches, _STOPS)),
        clause=read_clause(text, words, _stems_by_word(words, content_places, stems), breaks, polite, absorbed),
    )


def _count_words(counted: frozenset[str], words: Sequence[str]) -> int:
    return 0 if counted.isdisjoint(words) else sum(word in counted for word in words)


def _map_words(names: Mapping[str, str], words: Sequence[str]) -> frozenset[str]:
    return frozenset(names[word] for word in words if word in names)


_MEASURES = v.UNITS | v.UNIT_NAMES.keys()
_QUANTIFIERS = {word: share for word, share in v.QUANTIFIERS.items() if share}
_STOPS = frozenset(".?!\n")
_MARKS = frozenset(",.;:?!()\n–—")


def _punctuation_before(text: str, matches: Sequence[re.Match[str]], marks: frozenset[str] = _MARKS) -> list[bool]:
    """Whether a mark of punctuation stands before each word."""
    if not matches or marks.isdisjoint(text[: matches[-1].start()]):
        return [False] * len(matches)
    found, end = list[bool](), 0
    for match in matches:
        between = text[end : match.start()]
        found.append(between != " " and not marks.isdisjoint(between))
        end = match.end()
    return found


def _merge_particles(
    words: Sequence[str], content_places: Sequence[int], breaks: Sequence[bool]
) -> tuple[list[int], tuple[str, ...], frozenset[int]]:
    """(places of content words, the words there (*pick it up* becomes *collect*), places of absorbed particles)"""
    content_words, absorbed = {place: words[place] for place in content_places}, set[int]()
    for place in content_places:
        if words[place] == "charge" and words[place - 1 : place + 2] == _IN_CHARGE_OF:
            content_words[place] = "responsible"
            absorbed.add(place - 1)
        root = stem(words[place])
        reach = range(place + 1, min(place + _PARTICLE_REACH, len(words))) if root in _PARTICLE_VERBS else ()
        for after in reach:
            if breaks[after]:
                break
            if (root, words[after]) in PHRASES:
                content_words[place] = PHRASES[root, words[after]]
                absorbed.add(after)
                break
    kept = [place for place in content_places if place not in absorbed]
    return kept, tuple(content_words[place] for place in kept), frozenset(absorbed)


_PARTICLE_VERBS = frozenset(root for root, _ in PHRASES)
_PARTICLE_REACH = 6
"""Words behind a verb within which its particle is looked for."""


def _stems_by_word(words: Sequence[str], content_places: Sequence[int], stems: Sequence[str]) -> list[str]:
    found = [""] * len(words)
    for place, stem in zip(content_places, stems, strict=True):
        found[place] = stem
    return found


def _compound_words(words: Sequence[str]) -> Iterator[str]:
    """Pairs of words that mean one thing together; *how many days* and *how much time* are `how-long`."""
    for place, pair in enumerate(pairwise(words)):
        if pair[0] in _COMPOUND_STARTS and pair in _COMPOUNDS:
            measured = pair[0] == "how" and pair[1] in ("many", "much") and words[place + 2 : place + 3]
            yield (
                "how-long"
                if measured and measured[0] in DURATION_UNITS and words[place + 3 : place + 4] != ("of",)
                else _COMPOUNDS[pair]
            )


def _original_span(found: re.Match[str], inserted: Sequence[int]) -> tuple[int, int]:
    """Span of a match in the text as it was before a space was inserted at each of these places."""
    begin, end = found.span()
    before = bisect_left(inserted, begin)
    return begin - before, end - before


_ENDINGS = ("ization", "isation", "ational", "fulness", "ations", "ation", "ments", "ment", "ings", "ing", "ities",
            "ity", "ies", "edly", "ed", "ers", "er", "ors", "or", "ely", "ly", "es", "s", "al", "e", "ion")  # fmt: skip


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """A word without its endings, so that its forms are equal; short words stay as they are."""
    word = normalize_spelling(word.removesuffix("'s").removesuffix("()"))
    for _ in range(2):  # documented, as document
        word = _strip_ending(word)
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word[:-1] + "y" if word.endswith("i") and len(word) > 3 else word


def _strip_ending(word: str) -> str:
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


def _starts_sentence(text: str, place: int) -> bool:
    """Whether a sentence or a line begins at a place."""
    place -= 1
    while place >= 0 and text[place] in _SENTENCE_PADDING:
        place -= 1
    return place < 0 or text[place] in ".?!…:\n"


def _names(found: Sequence[str], sentence_starts: frozenset[int]) -> tuple[frozenset[str], frozenset[str]]:
    """(`names`, `codes`). `sentence_starts`: places of capitalised words that begin a sentence."""
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
        elif word.lower() not in _NOT_NAMES and (
            inner_capital or (place not in sentence_starts and word[0].isupper() and word.lower() not in v.STOP)
        ):
            names.add(WRITTEN.get(bare.lower(), bare.lower()).removesuffix("'s"))
    return frozenset(names), frozenset(codes)


def _times(found: Sequence[str], lower: Sequence[str], sentence_starts: frozenset[int]) -> frozenset[str]:
    times = set[str]()
    if v.TIMES.isdisjoint(lower) and not any(low.endswith("'s") for low in lower):
        return frozenset()
    for place, low in enumerate(lower):
        if low not in v.TIMES:
            low = found[place].lower().removesuffix("'s") if low.endswith("'s") else ""
        if (
            low
            and low in v.TIMES
            and (low not in _CAPITAL_TIMES or (found[place][0].isupper() and place not in sentence_starts))
        ):
            short = low[:3] if low[:3] in _DATES and low.startswith(_DATES[low[:3]]) else low
            times.add(v.TIME_NAMES.get(low, short))
    return frozenset(times)


def _directions(words: Sequence[str], ends: Sequence[bool]) -> tuple[tuple[str, frozenset[str], frozenset[str]], ...]:
    stems = [stem(word) if _is_content(word) else "" for word in words]
    found = []
    for place, word in enumerate(words):
        if word in _DIRECTIONAL and not _is_infinitive(words, place):
            least, most = max(0, place - MAX_SCAN), min(len(words), place + 1 + MAX_SCAN)
            first = next((i for i in range(place, least, -1) if ends[i]), least)
            last = next((i for i in range(place + 1, most) if ends[i]), most)
            found.append((word, _first_three(reversed(stems[first:place])), _first_three(stems[place + 1 : last])))
    return tuple(found)


def _is_infinitive(words: Sequence[str], place: int) -> bool:
    """Whether `to` stands before a verb, so that an article follows the next word: *to load a table*."""
    first, second = (*words[place + 1 : place + 3], "", "")[:2]
    return words[place] == "to" and second in _ARTICLES and _is_content(first) and "from" not in words[:place][-4:]


def _first_three(stems: Iterable[str]) -> frozenset[str]:
    return frozenset(islice(filter(None, stems), 3))


def _is_content(word: str) -> bool:
    return word not in v.STOP and word not in v.NEGATIONS


@lru_cache(maxsize=8192)
def _is_content_word(word: str) -> bool:
    """Whether a word may be a content word: not a stop word, a negation, a number or quoted."""
    return _is_content(word) and not _is_number(word) and word[0] not in '`"$€£¥%'


def language_of(text: str, words: Sequence[str]) -> str:
    """The language or script of a text; empty where its function words do not tell."""
    for name, first, last in () if text.isascii() else _SCRIPTS:
        if sum(first <= letter <= last for letter in text) * 3 > len(text):
            return name
    counts = Counter(name for word in words if word in _LANGUAGES_BY_WORD for name in _LANGUAGES_BY_WORD[word])
    most, after = (*sorted(counts.values(), reverse=True)[:2], 0, 0)[:2]
    return max(counts, key=counts.__getitem__) if most >= 2 and most > 1.3 * after else ""
