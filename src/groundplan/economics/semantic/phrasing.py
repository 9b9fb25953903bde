"""Rewrites a question to its usual phrasing: *what are the steps to reset my password* becomes *how do I reset my
password*. Pure; English only.

People ask the same thing in a few dozen frames around the same words. Each line here is a frame and its usual phrasing;
the contents of slots stay as written. Only a text that matches a frame as a whole is rewritten, so nothing in it is
lost; all other texts stay as they are. Whether two questions mean the same is decided afterwards by guards and score
(`equivalence`). Words are replaced only where the frame fixes their meaning (*update*, *change* my address).
"""

from __future__ import annotations

import re
from functools import lru_cache

from groundplan.economics.semantic.grammar import POLITE
from groundplan.economics.semantic.reading import Reading, read

MAX_LENGTH = 240
"""Characters above which a question is not rewritten."""
_SLOT = r"(?:[^?!;:.,]|[.,](?=\S))+?"
_NAMES = re.compile(r"<(\w+)>")
_GREETING = re.compile(r"(?:hi|hello|hey|good (?:morning|afternoon|evening))(?: there| all| team)?[,!.]? +", re.I)
_SEPARATOR = re.compile(r"[ ,]+")
_THANKS = re.compile(r"[,.!? ]+(?:please|thanks(?: a lot| so much| in advance)?|thank you(?: very much)?)[!.]*$", re.I)

_HOW = "How do <one> <do>"
_CAN = "Can <one> <do>"
_PRICE = "What is the price of <thing><more>"
_SLOTS = {"one": r"i|we", "do": _SLOT, "that": _SLOT, "thing": _SLOT, "more": rf"(?: {_SLOT})?"}
_PERSONAL_DETAILS = (
    r"(?:[a-z-]+ ){0,3}(?:address(?:es)?|details|profile|information|info|data|e-?mail|number|name|picture|photo|"
    r"settings|preferences)"
)
"""Things that are *updated* where others are *changed*."""
_PROCESSES = "(?:delivery|shipping|processing|response|turnaround|waiting|handling|dispatch|repair|approval)"
"""Processes whose *time* is how long they take."""
_AMOUNTS = (
    "(?:fee|charge|deposit|fare|rent|price|cost|allowance|limit|premium|salary|penalty|fine|discount|bonus|budget|"
    "rate|tax)s?"
)
"""Things of which *how much* asks the same as *what*."""
_PARTICIPLE_VERBS = "accept support offer provide allow cover include require need"
_PARTICIPLES = {f"{verb}{'d' if verb.endswith('e') else 'ed'}": verb for verb in _PARTICIPLE_VERBS.split()}

_FRAMES: tuple[tuple[str, str], ...] = (
    # how something is done
    (r"how (?:can|could|do|might|would) <one> (?:go about )?<do>", _HOW),
    (r"how <one> (?:can |could |might )<do>", _HOW),
    (r"how to <do>", "How do I <do>"),
    (r"what(?: is|'s| are) the (?:(?:best|right|correct|proper|easiest|necessary|required) )?"
     r"(?:steps?|ways?|process|procedure|method) (?:for <one> )?to <do>", "How do I <do>"),
    (r"what (?:do|must) <one> (?:need to |have to )?do (?:in order )?to <do>", _HOW),
    (r"what steps (?:do <one> (?:need|have) to|must <one>|should <one>) (?:take|follow) (?:in order )?to <do>", _HOW),
    (r"<one> (?:want|need|would like|wish) to <do>[,.;!]* "
     r"(?:how (?:do|can|could) (?:i|we) (?:do|go about) (?:that|this|it)|what (?:do|should|must) (?:i|we) do)", _HOW),
    (r"what(?: is|'s| are) the (?:(?:best|right|correct|proper|easiest|necessary|required) )?"
     r"(?:steps?|ways?|process|procedure|method) (?:for|of) (?P<doing>[a-z]+ing)<more>", "How do I <doing><more>"),
    (r"(?:what are )?(?:the )?(?:steps|instructions|directions) (?:on how )?to <do>", "How do I <do>"),
    (r"(?:what are )?(?:the )?(?:steps|instructions|directions) (?:for|on) (?P<doing>[a-z]+ing)<more>",
     "How do I <doing><more>"),
    # whether it may be done
    (r"(?:if|whether) <one> can <do>", _CAN),
    (r"(?:if|whether) (?:it is|it's) possible(?: for (?:me|us))? to <do>", "Can I <do>"),
    (r"(?:is|would) it (?:be )?possible(?: for (?:me|us))? to <do>", "Can I <do>"),
    (r"(?:am i|are we) able to <do>", "Can I <do>"),
    (r"is there (?:a|any) way (?:for (?:me|us) )?to <do>", "Can I <do>"),
    (r"is there (?:a|any) way (?:that )?<one> can <do>", _CAN),
    (r"is it (?:ok|okay|fine|allowed|permitted)(?: for (?:me|us))? to <do>", "Can I <do>"),
    (r"(?:am i|are we) (?:allowed|permitted) to <do>", "Can I <do>"),
    # whether it must
    (r"is it (?:necessary|required|mandatory|compulsory|obligatory)(?: for (?:me|us))? to <do>", "Do I have to <do>"),
    (r"(?:am i|are we) (?:required|obliged) to <do>", "Do I have to <do>"),
    (r"(?:do|will) <one> (?:need|have) to <do>", "Do <one> have to <do>"),
    (r"(?:if|whether) <one> (?:need|have) to <do>", "Do <one> have to <do>"),
    (r"must <one> <do>", "Do <one> have to <do>"),
    # whether there is something
    (r"do you (?:offer|have|provide) (?:(?:a|an|any) )?<thing>", "Is there <thing>"),
    (r"(?:is|are) there (?:(?:a|an|any) )?<thing> available", "Is there <thing>"),
    (r"(?:is|are) there (?:(?:a|an|any) )?<thing>", "Is there <thing>"),
    (r"(?:is|are) (?:(?:a|an) )?<thing> (?:available|offered)", "Is there <thing>"),
    (r"(?:if|whether) (?:there (?:is|are)|you (?:offer|have|provide)) (?:(?:a|an|any) )?<thing>", "Is there <thing>"),
    # what it costs
    (r"how much (?:does|do|will|would) <thing> cost<more>", _PRICE),
    (r"what (?:does|do|will|would) <thing> cost<more>", _PRICE),
    (r"(?:how much|what) (?P<thing>(?:the|an?|your|my|our|it) ?" + _SLOT + ") costs<more>", _PRICE),
    (rf"how (?:much|high|large) (?:is|are) (?P<thing>(?:the|your|my|our) (?:[\w-]+ )*{_AMOUNTS})"
     rf"(?P<more>(?: (?:for|of|on|in|at|to|if|when|with|from) {_SLOT})?)", "What is <thing><more>"),
    (r"how much (?:is|are) <thing>", "What is the price of <thing>"),
    (r"(?:what(?: is|'s| are) )?(?:the )?(?:price|cost)s? (?:of|for) <thing>", "What is the price of <thing>"),
    # how long it lasts, when it is
    (r"what(?: is|'s) the (?:duration|length) of <thing>", "How long is <thing>"),
    (r"what(?: is|'s) the <thing> (?:period|duration|length) (?:for|of|on) <that>",
     "How long is the <thing> for <that>"),
    (r"(?:for )?how long is the (?P<thing>warranty|guarantee) (?:for|of|on) <that>",
     "How long is the <thing> for <that>"),
    (r"what(?: is|'s) the (?P<thing>" + _PROCESSES + ") time", "How long does <thing> take"),
    (r"how (?:long|many days) (?:does|will|would|should) it take (?:for|until|before) (?:my|our|an|the) "
     r"(?:order|package|parcel|shipment|delivery)s? (?:to )?"
     r"(?:arrives?|comes?|reach(?:es)? me|(?:be|is|gets?) delivered)",
     "How long does delivery take"),
    (r"how (?:much time|many (?:days|weeks|hours|minutes)) (?:does|will|would) it take to <do>",
     "How long does it take to <do>"),
    (r"how frequently <that>", "How often <that>"),
    (r"how long <thing> takes", "How long does <thing> take"),
    (r"when <thing> (?P<is>is|are) open", "When <is> <thing> open"),
    (r"(?:at )?what (?:time|times|hours) (?:is|are) <thing> open", "When is <thing> open"),
    (r"what(?: is|'s| are) the <thing> opening (?:hours|times)", "When is the <thing> open"),
    (r"what(?: is|'s| are) the opening (?:hours|times) (?:of|for|at) <thing>", "When is <thing> open"),
    (r"(?:at )?what time (?P<does>does|do|is|are|will) <thing>", "When <does> <thing>"),
    (r"(?:on )?(?:what|which) (?:date|day) (?P<does>does|do|is|are|will) <thing>", "When <does> <thing>"),
    (r"what(?: is|'s) the deadline (?P<for>for|to) <thing>", "When is the deadline <for> <thing>"),
    # what is taken, known or needed
    (r"(?:what|which) <thing> (?:are|is) (?P<done>" + "|".join(_PARTICIPLES) + ") by <that>",
     "What <thing> do <that> <done>"),
    (r"(?:what|which) <thing> (?:are|is) (?P<done>accepted|supported|offered|provided)", "What <thing> do you <done>"),
    (r"(?:what|which) <thing> (?:are|is) (?:needed|required) (?P<for>for|to) <that>",
     "What <thing> do I need <for> <that>"),
    (r"(?:what|which) <thing> (?:do|does) <that> (?P<done>" + "|".join(_PARTICIPLES.values()) + ")<more>",
     "What <thing> do <that> <done><more>"),
    (r"how many <thing> (?:does|do) (?P<that>(?:the|your|our) [\w -]+?) have", "How many <thing> are there in <that>"),
    (r"(?:what(?: is|'s) )?the number of <thing> (?:in|at|of) <that>", "How many <thing> are there in <that>"),
    (r"how many <thing> (?:am|are) <one> able to <do>", "How many <thing> can <one> <do>"),
    (r"how many <thing> (?:do i get|am i (?:entitled to|given|allowed))<more>", "How many <thing> do I get<more>"),
    (r"how many <thing> do i have(?P<more> a (?:year|month|week|day))", "How many <thing> do I get<more>"),
    (r"(?:what(?: is|'s) )?(?:the|your|our) policy (?:on|for|about|regarding) <thing>", "What is the <thing> policy"),
    (r"(?:what(?: is|'s) )?(?:the|your|our) <thing> policy", "What is the <thing> policy"),
    (r"am i eligible for <thing>", "Do I qualify for <thing>"),
    (r"do i have (?:a|the) right to <thing>", "Am I entitled to <thing>"),
    # what then, why, where, who
    (r"what (?:should|do) <one> do (?:if|when|in case|once) <that>", "What should <one> do if <that>"),
    (r"(?P<that>(?:my|our|i|we|the|an?|it|there|some(?:one|body)) " + _SLOT + r")[,.;!]+ "
     r"what (?:should|do) <one> do(?: now)?", "What should <one> do if <that>"),
    (r"what (?:happens|will happen|would happen) (?:if|when|in case|once) <that>", "What happens if <that>"),
    (r"what(?: is|'s| are) the consequences? (?:of|for) (?P<doing>[a-z]+ing)<more>", "What happens if I <doing><more>"),
    (r"why (?:am|are) <one> (?:unable|not able) to <do>", "Why can't <one> <do>"),
    (r"what(?: is|'s| was) the reason (?:that |why )?<thing> (?P<was>is|are|was|were) <that>",
     "Why <was> <thing> <that>"),
    (r"where (?:can|could|do|would) <one> <do>", "Where can <one> <do>"),
    (r"where <one> can <do>", "Where can <one> <do>"),
    (r"where (?P<is>is|are) <thing> (?:located|situated)", "Where <is> <thing>"),
    (r"where <thing> (?P<is>is|are)(?: located| situated)?", "Where <is> <thing>"),
    (r"whom? (?:should|can|do|could) <one> (?:contact|ask|turn to|speak to|talk to|reach out to)<more>",
     "Who do <one> contact<more>"),
    (r"whom? (?:should|can|do|could) <one> (?P<verb>call|notify|inform)<more>", "Who do <one> <verb><more>"),
    (r"who(?: is|'s) (?:responsible for|in charge of) (?P<doing>[a-z]+ing) <that>", "Who <does> <that>"),
    (r"what(?: is|'s) the meaning of <thing>", "What does <thing> mean"),
    (r"(?:explain )?what <thing> means", "What does <thing> mean"),
)  # fmt: skip
"""(frame, usual phrasing), in order: the first that matches counts."""
_EQUIVALENT_PHRASES = (
    (re.compile(r"\bthe ([\w -]+?) (?:on|in|of|for) my (?:account|profile)\b", re.I), r"my \1"),
    (re.compile(rf"\b(?:update|modify|edit)(?= (?:my|our|the|your) {_PERSONAL_DETAILS}\b)", re.I), "change"),
    (re.compile(r"\bget in touch with\b", re.I), "contact"),
    (re.compile(r"\b(?:regarding|concerning|with regards? to)\b", re.I), "about"),
    (re.compile(r"\bmake (?:a )?changes? to\b", re.I), "change"),
    (re.compile(r"\bsign off on\b", re.I), "approve"),
    (
        re.compile(
            r"\b(?:reach|get (?:a )?hold of)(?= (?:the |your )?(?:customer |technical |tech )?"
            r"(?:support|service|care|help ?desk)\b)",
            re.I,
        ),
        "contact",
    ),
    (re.compile(r"\b(?:(?:whenever|any ?time) (?:i|we) (?:want|like)|anytime)\b", re.I), "at any time"),
    (re.compile(r"\bget rid of\b", re.I), "remove"),
    (re.compile(r"\b(?:per|each|every) (?=year\b|month\b|week\b|day\b)", re.I), "a "),
)
"""(pattern, phrase that means the same anywhere)"""
_MISHAP = re.compile(
    r"^(?P<thing>(?:my|our) [\w -]+?) (?:was|is|got|gets|has been|has gotten|is being|are|were|have been) "
    r"(?=(?:lost|stolen|damaged|broken|declined|rejected|refused|cancell?ed|delayed|hacked|locked|blocked|denied)\b)",
    re.I,
)
_LOST = re.compile(r"^(i|we)(?:'ve| have)? lost\b", re.I)
"""A mishap in the past and in the present: what to do about it is the same."""


def _compile_frame(frame: str) -> re.Pattern[str]:
    used = set[str]()

    def slot(found: re.Match[str]) -> str:
        name = found[1]
        if name in used:
            return f"(?:{_SLOTS[name]})"
        used.add(name)
        return f"(?P<{name}>{_SLOTS[name]})"

    return re.compile(re.sub(r"(?<!\?P)<(\w+)>", slot, frame), re.IGNORECASE)


_COMPILED_FRAMES = tuple((_compile_frame(frame), usual_phrasing) for frame, usual_phrasing in _FRAMES)


def read_question(text: str) -> Reading:
    """Read a question in its usual phrasing, which is also the `text` to embed."""
    return read(usual_phrasing(text))


@lru_cache(maxsize=4096)
def usual_phrasing(text: str) -> str:
    """The usual phrasing of a question; `text` itself if no frame matches it as a whole."""
    flat = " ".join(text.split())
    if not 0 < len(flat) <= MAX_LENGTH or not flat.isascii():  # so that no place moves with the case of a letter
        return text
    bare = _strip_politeness(_THANKS.sub("", flat.rstrip("?!. ")).rstrip("?!., "))
    for verb, plain in _EQUIVALENT_PHRASES:
        bare = verb.sub(plain, bare)
    for frame, put in _COMPILED_FRAMES:
        if found := frame.fullmatch(bare):
            return _fill_frame(put, found) + "?"
    return text


def _strip_politeness(text: str) -> str:
    """The text without greetings and polite phrases before it."""
    place = 0
    while place < len(text):
        found = _GREETING.match(text, place) or _SEPARATOR.match(text, place) or POLITE.match(text.lower(), place)
        if not found or found.end() == place:
            break
        place = found.end()
    return text[place:] if len(text) > place else text


def _fill_frame(put: str, found: re.Match[str]) -> str:
    values = found.groupdict()
    if values.get("that"):
        values["that"] = _LOST.sub(r"\1 lose", _MISHAP.sub(r"\g<thing> is ", values["that"]))
    if values.get("done"):
        values["done"] = _PARTICIPLES.get(values["done"].lower(), values["done"])
    if "<thing> policy" in put and values.get("thing"):
        values["thing"] = values["thing"].removesuffix("s")
    if values.get("doing"):
        values["doing"] = _infinitive(values["doing"].lower())
        values["does"] = values["doing"] + ("es" if values["doing"].endswith(("s", "x", "ch", "sh")) else "s")
    if values.get("one"):
        values["one"] = "I" if values["one"].lower() == "i" else "we"
    return _NAMES.sub(lambda name: values.get(name[1]) or "", put)


def _infinitive(doing: str) -> str:
    """`approve` of `approving`, by the commonest spelling: forms of a word are equal later anyway (`reading.stem`)."""
    root = doing.removesuffix("ing")
    if root[-1:] in "vczu" or root[-2:] in _ENDINGS_BEFORE_E or (root[-1:] == "l" and root[-2:-1] in "bcdfgkpstz"):
        return f"{root}e"
    return root[:-1] if root[-1:] == root[-2:-1] and root[-1:] not in "lsz" else root


_ENDINGS_BEFORE_E = ("at", "ut", "ag", "ir", "os", "us")
