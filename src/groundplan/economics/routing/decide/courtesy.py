"""Removes polite phrases around a question, in English: greetings, *could you please*, thanks. A router ignores them.

Only phrases at the beginning or the end of a text are removed; a greeting or thanks within a text, or as the whole
text, stay. Other languages are not recognised.
"""

from __future__ import annotations

import re
from typing import Final

_MOST: Final = 6
"""Limit of phrases removed at either end."""
_LONGEST: Final = 120
"""Limit of characters of a phrase, so that the time does not grow with the text."""
_WITH: Final = (
    r"(?:\s+(?:with|out\s+with|on|about))?(?:\s+(?:this|that|the\s+following|something|a\s+question|one\s+thing))?"
)
_TELL: Final = (
    rf"(?:tell\s+me|let\s+me\s+know|answer(?:\s+me)?{_WITH}|help(?:\s+(?:me|us))?(?:\s+out)?{_WITH})(?:\s+please)?"
)
_OPENS: Final = re.compile(
    rf"""\s*(?:
      (?:hi|hello|hey|greetings|good\s+(?:morning|afternoon|evening|day)|dear\s+(?:all|team|assistant|sir\s+or\s+madam))
        (?:\s+(?:there|all|everyone|everybody|team|again|assistant))?\s*[,.!:;\n-]
    | (?:i\s+(?:just\s+)?(?:have|had|got)\s+|just\s+)?(?:a\s+)?(?:quick|short|small|brief|simple)\s+question\b
        (?:\s+(?:for\s+you|here|please))?\s*[,.!:;\n-]
    | (?:excuse\s+me|sorry\s+(?:to\s+bother\s+you|for\s+the\s+(?:trouble|bother)))\b(?:\s*,?\s*but\b)?\s*[,.!:;\n-]
    | i\s*(?:'d|\u2019d|\s+would|\s+want|\s+wanted)(?:\s+(?:like|love))?\s+to\s+(?:know|ask)\b
        (?:\s+(?:you|the\s+following|this|something))?\s*[,.:]?
    | (?:could|can|would|will)\s+you\s+(?:(?:please|kindly)\s+)?{_TELL}(?=\s*[,.!:;?\n-]
        |\s+(?:what|which|who|whom|whose|when|where|why|how|if|whether|about)\b)\s*[,.!:;?-]?
    | (?:could|can|would|will)\s+you\s*,?\s*(?:please|kindly)\b\s*,?
    | (?:please|kindly|pls)\s+{_TELL}(?=\s*[,.!:;\n-]|\s+(?:what|which|who|whom|whose|when|where|why|how|if|whether)\b)
        \s*[,.!:;-]?
    | (?:please|kindly|pls)\b\s*[,:]?
    )(?=[\s\W]*\w)""",
    re.IGNORECASE | re.VERBOSE,
)
_ENDS: Final = re.compile(
    r"""(?:
      \s*\b(?:(?:many|so\s+many|much)\s+)?(?:thanks|thank\s+you|thx|cheers)
        (?:\s+(?:so\s+much|very\s+much|a\s+lot|a\s+million|again|already|in\s+advance
          |for\s+(?:your|the|any|all\s+your)\s+(?:help|time|answer|support)|for\s+helping(?:\s+me)?))*
    | (?:,\s*|\s+)(?:please|pls)
    )[\s.!?]*\Z""",
    re.IGNORECASE | re.VERBOSE,
)
_WORD: Final = re.compile(r"\w")
_BEFORE: Final = re.compile(r"(\w+)[ \t]*\Z")
_SAID: Final = frozenset({
    "a", "about", "an", "and", "as", "by", "called", "for", "from", "her", "his", "in", "into", "is", "like",
    "mean", "means", "my", "no", "of", "or", "our", "phrase", "pronounce", "say", "saying", "says", "spell", "the",
    "their", "to", "translate", "with", "word", "words", "write", "writing", "your",
})  # fmt: skip
"""Words that before *thanks* show that the question is about that word, if no punctuation ends the question."""


def strip_courtesy(text: str) -> str:
    """The text without polite phrases around it; unchanged if nothing else would be left."""
    begin, end = 0, len(text)
    for _ in range(_MOST):
        found = _OPENS.match(text, begin, begin + _LONGEST)
        if found is None:
            break
        begin = found.end()
    for _ in range(_MOST):
        found = _ENDS.search(text, max(begin, end - _LONGEST), end)
        if found is None or _asked_about(text, begin, found.start()):
            break
        end = found.start()
    framed = (begin, end) != (0, len(text)) and _WORD.search(text, begin, end)
    return text[begin:end].strip() if framed else text


def _asked_about(text: str, begin: int, end: int) -> bool:
    before = _BEFORE.search(text, max(begin, end - _LONGEST), end)
    return before is not None and before[1].lower() in _SAID
