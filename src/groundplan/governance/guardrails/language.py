"""Detects the language of a text by its commonest words, or that its script is not Latin. Pure.

Short texts, and languages in Latin script that are not listed here, are reported as unknown; it never guesses.
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
_COMMON_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_LANGUAGES_OF_WORD = {
    word: tuple(language for language, known in _COMMON_WORDS.items() if word in known)
    for word in frozenset().union(*_COMMON_WORDS.values())
}
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_TOKEN = re.compile(r"[^\W\d_]+")
OTHER_SCRIPT = "other script"
ANOTHER = "another language"
MIN_WORDS = 8
"""A text with fewer words has no known language."""
MIN_PROSE_WORDS = 30
"""Words in sentences that a text must have for its language to be found to be another one than those listed."""
MIN_LETTERS = 16
"""Letters that a text must have for its script to be judged; words cannot be counted in scripts without spaces."""
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_OTHER = re.compile(
    "[\u0370-\u1dff\u1f00-\u1fff\u2c00-\u2dff\u2e80-\ud7ff\uf900-\ufaff\ufb1d-\ufdff\ufe70-\ufefc\U00010000-\U0001e943"
    "\U00020000-\U0003ffff]"
)
"""Letters of other scripts, by blocks; no punctuation, signs or pictures."""
_MIN_SHARE = 0.12
_MIN_LEAD = 1.25


def disallowed_language(text: str, languages: Collection[str]) -> str:
    """The language of a text that is in none of `languages`; `another language` if it is in none that is listed here;
    empty if it is in one of `languages`, or unknown."""
    language = detect_language(text)
    if language is not None:
        return "" if language in languages else language
    words = _sentence_words(text[:4000])
    if len(words) < MIN_PROSE_WORDS:
        return ""
    most = max((sum(word in _COMMON_WORDS[each] for word in words) for each in languages), default=len(words))
    return ANOTHER if most < _MIN_SHARE / 2 * len(words) else ""


def detect_language(text: str) -> str | None:
    """`de`, `en`, …; `other script` if most letters are not Latin; None if the language is unknown."""
    if not text.isascii() and _is_other_script(text[:4000]):
        return OTHER_SCRIPT
    words = _TOKEN.findall(text[:4000].lower())
    if len(words) < MIN_WORDS:
        return None
    hits = dict.fromkeys(_COMMON_WORDS, 0)
    for word in words:
        for language in _LANGUAGES_OF_WORD.get(word, ()):
            hits[language] += 1
    (best, language), (second, _) = sorted(((count, language) for language, count in hits.items()), reverse=True)[:2]
    if best < _MIN_SHARE * len(words) or best < _MIN_LEAD * second:
        return None
    return language


def _sentence_words(text: str) -> list[str]:
    """The words of lines that may be sentences: not those of fenced code, JSON or lists of names."""
    if text.lstrip()[:1] in ("{", "[", "<"):
        return []
    lines = (_TOKEN.findall(line) for line in _FENCED.sub("", text.lower()).splitlines())
    return [word for line in lines if len(line) >= MIN_WORDS for word in line]


def _is_other_script(text: str) -> bool:
    other = len(_OTHER.findall(text))
    if 2 * other < MIN_LETTERS:
        return False
    letters = other + len(_LATIN.findall(text))
    return letters >= MIN_LETTERS and 2 * other > letters
