"""Which language a text is in, by its commonest words, or that it is written in another script than they all. Pure.

Of short texts, and of languages in Latin script that are not named here, it says that it does not know; it never
guesses.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_WORDS = {
    "de": "der die das und ist nicht ich sie mit ein eine auf für den dem von zu wir haben wird auch sich es wie bei",
    "en": "the and is not you of to in that it for with are this be have on as was we will can your from or which if",
    "es": "el la los las y es no que de en un una por con para su se lo como más pero está del al esto cuando qué",
    "fr": "le la les et est ne pas que de en un une pour avec dans vous nous ce sur il elle qui sont au du des être",
    "it": "il lo la gli le e è non che di in un una per con sono del della si come più ma anche questo alla nel ha",
    "nl": "de het een en is niet ik van te dat op voor met zijn er aan ook als bij wij worden naar maar dan om deze",
    "pl": "i nie to się na jest że z w do jak o za co po dla są od tak ale być przez który czy oraz tego może",
    "pt": "o a os as e é não que de em um uma para com por se do da no na mais como mas ao dos você são está",
    "sv": "och att det är inte en ett som på för med av jag vi den till har om kan var ska från eller när så men",
}
_SETS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_OF_WORD = {
    word: tuple(language for language, known in _SETS.items() if word in known)
    for word in frozenset().union(*_SETS.values())
}
"""Common word -> the languages that have it."""
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_TOKEN = re.compile(r"[^\W\d_]+")
OTHER_SCRIPT = "other script"
ANOTHER = "another language"
LEAST = 8
"""Words below which nothing is said."""
LEAST_PROSE = 30
"""Words of sentences below which nothing is said of how few of them are common in a language."""
LEAST_LETTERS = 16
"""Letters below which nothing is said of their script, since it may have no spaces between words."""
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_OTHER = re.compile(
    "[\u0370-\u1dff\u1f00-\u1fff\u2c00-\u2dff\u2e80-\ud7ff\uf900-\ufaff\ufb1d-\ufdff\ufe70-\ufefc\U00010000-\U0001e943"
    "\U00020000-\U0003ffff]"
)
"""Letters of other scripts, by blocks; no punctuation, signs or pictures."""
_SHARE = 0.12
_LEAD = 1.25


def foreign(text: str, languages: Collection[str]) -> str:
    """Which language a text is in that is none of `languages`; `another language` where it is in none that is known
    here; empty where it is in one of them, or not known."""
    spoken = language_of(text)
    if spoken is not None:
        return "" if spoken in languages else spoken
    words = _prose(text[:4000])
    if len(words) < LEAST_PROSE:
        return ""
    most = max((sum(word in _SETS[each] for word in words) for each in languages), default=len(words))
    return ANOTHER if most < _SHARE / 2 * len(words) else ""


def language_of(text: str) -> str | None:
    """`de`, `en`, ...; `other script` where most letters are none of those languages'; None where it is not known."""
    if not text.isascii() and _other_script(text[:4000]):
        return OTHER_SCRIPT
    words = _TOKEN.findall(text[:4000].lower())
    if len(words) < LEAST:
        return None
    hits = dict.fromkeys(_SETS, 0)
    for word in words:
        for language in _OF_WORD.get(word, ()):
            hits[language] += 1
    (best, language), (second, _) = sorted(((count, language) for language, count in hits.items()), reverse=True)[:2]
    if best < _SHARE * len(words) or best < _LEAD * second:
        return None
    return language


def _prose(text: str) -> list[str]:
    """The words of lines that may be sentences: neither code in fences, nor JSON, nor lists of names."""
    if text.lstrip()[:1] in ("{", "[", "<"):
        return []
    lines = (_TOKEN.findall(line) for line in _FENCED.sub("", text.lower()).splitlines())
    return [word for line in lines if len(line) >= LEAST for word in line]


def _other_script(text: str) -> bool:
    other = len(_OTHER.findall(text))
    if 2 * other < LEAST_LETTERS:
        return False
    letters = other + len(_LATIN.findall(text))
    return letters >= LEAST_LETTERS and 2 * other > letters
