"""Signs that a text tries to change a model's instructions: a score from 0 to 1 and the signs, never a proof. Pure.

A question about such attacks uses the same words as an attack, so the result is a label for a person or a rule; its
rates of misses and false alarms are measured (docs/guardrails.md). Base64, hexadecimal, ROT13, digits for letters and
spaced letters are decoded first; other encodings, and languages not named here, are not found.
"""

# ruff: noqa: E501 -- a pattern is read as a whole
from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

THRESHOLD = 0.5
"""Lowest score of a text that is labelled."""
MAX_CHARACTERS = 200_000
"""Only the first characters of a longer text are checked."""
_OLD = r"(?:previous|prior|above|earlier|preceding|existing|original|initial|former|foregoing|all)"
_TOLD = (
    r"(?:instructions?|prompts?|rules?|guidelines?|directives?|directions?|commands?|constraints?|restrictions?|"
    r"safety|policies|policy|training|programming|context|messages?|guardrails?|filters?)"
)
_FORGET = (
    r"(?:ignore|disregard|forget|override|overrule|bypass|skip|neglect|drop|discard|abandon|cancel|void|erase|"
    r"do not (?:follow|obey)|don'?t (?:follow|obey)|stop following|pay no attention to)"
)


@dataclass(frozen=True, slots=True)
class Signs:
    """`score` combines all signs; `names` are theirs, sorted."""

    score: float
    names: tuple[str, ...] = ()

    @property
    def is_labelled(self) -> bool:
        return self.score >= THRESHOLD


def _sign(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.lower(), re.ASCII)


_SIGNS: tuple[tuple[str, float, re.Pattern[str]], ...] = (
    ("override", 0.7, _sign(rf"\b{_FORGET}\b[^.\n]{{0,40}}\b{_OLD}\b[^.\n]{{0,40}}\b{_TOLD}\b")),
    ("override", 0.6, _sign(rf"\b{_FORGET}\b (?:your|the|any|these|those|my|its)? ?(?:[a-z]+ ){{0,2}}{_TOLD}\b")),
    ("override", 0.6, _sign(rf"\b{_FORGET}\b (?:everything|anything|whatever|what) [^.\n]{{0,40}}(?:told|said|above|before|given)")),
    ("new orders", 0.6, _sign(r"\b(?:new|updated|revised|real|actual|true|following|these) (?:system )?(?:instructions?|task|"
                              r"orders?|rules?|directive)s?\b ?(?::|are|is|follow|supersede|override|replace)")),
    ("new orders", 0.5, _sign(r"\b(?:instead|from now on|starting now|henceforth|going forward)\b[^.\n]{0,40}\b(?:you (?:are|will|"
                              r"must|should|shall)|act as|respond|reply|answer|output|print|say|do)\b")),
    ("another self", 0.5, _sign(r"\b(?:you are|you're|act|behave|pretend|roleplay|role-play|respond|imagine you)\b[^.\n]{0,30}\b(?:no longer|"
                                r"now (?:a|an|the|in|free|dan)|as (?:a|an|if)[^.\n]{0,30}\b(?:unrestricted|unfiltered|uncensored|"
                                r"jailbroken|without|no (?:rules|limits|restrictions|filters)))")),
    ("another self", 0.6, _sign(r"\b(?:jailbreak|jailbroken|unfiltered|uncensored|unrestricted|developer|god|dan|debug|admin|sudo|root) "
                                r"?mode\b|\bdo anything now\b|\bno (?:ethical|moral|content) (?:guidelines|restrictions|limits|filters)")),
    ("leak", 0.6, _sign(r"\b(?:reveal|show|print|repeat|output|display|disclose|leak|tell me|give me|dump|recite|share|expose|return|echo|"
                        r"what (?:is|are|was|were)|write out|copy|summari[sz]e|translate|encode)\b[^.\n]{0,50}\b(?:system (?:prompt|message|"
                        r"instructions?)|(?:your|the) (?:hidden |secret |initial |original |full |exact |internal |confidential )+"
                        r"(?:prompt|instructions?|rules|guidelines|configuration)|(?:your|the) (?:initial )?prompt\b|developer message|"
                        r"(?:your|the) instructions (?:above|verbatim|word for word)|(?:text|words|everything|content) above)")),
    ("leak", 0.5, _sign(r"\b(?:api[ _-]?keys?|passwords?|credentials?|secrets?|access tokens?|environment variables?|private keys?)\b"
                        r"[^.\n]{0,60}\b(?:to|at|via|into) (?:https?://|[a-z0-9.-]+@|the (?:url|address|attacker|endpoint))")),
    ("send away", 0.6, _sign(r"\b(?:send|post|forward|e-?mail|exfiltrate|upload|transmit|leak|deliver|submit)\b[^.\n]{0,80}\b(?:to|at)\b"
                             r"[^.\n]{0,20}(?:https?://|\b[a-z0-9._-]+@[a-z0-9.-]+\.[a-z]{2,}|attacker|evil|external)")),
    ("send away", 0.6, _sign(r"!\[[^\]\n]{0,80}\]\(https?://[^)\s]{1,300}[?&=/][^)\s]{0,200}(?:\{|%7b|<|\$|data|secret|token|prompt|q=)")),
    ("false speaker", 0.6, _sign(r"(?:^|\n) {0,3}(?:\[|<|#{1,4} ?|\*\*)?(?:system|developer|assistant|admin)(?: (?:prompt|message|override|note|"
                                 r"instruction|update|alert|notice)s?)?(?:\]|>|\*\*)? ?:")),
    ("false speaker", 0.7, _sign(r"<\|?(?:im_start|im_end|system|endoftext|start_header_id|eot_id)\|?>|\[/?INST\]|<</?SYS>>|"
                                 r"</?(?:system|instructions?|user_input|context|document|tool_(?:result|output|call))>")),
    ("false speaker", 0.5, _sign(r"\b(?:note|message|attention|important|instruction|notice)s? (?:to|for) (?:the )?(?:ai|llm|assistant|model|chatbot|"
                                 r"agent|language model|bot|gpt|claude|copilot)")),
    ("false speaker", 0.4, _sign(r"\b(?:ai|llm|assistant|agent|model)s? (?:reading|processing|summari[sz]ing|parsing|analy[sz]ing) this\b")),
    ("hide it", 0.5, _sign(r"\b(?:do not|don'?t|never|without) (?:tell|mention|inform|reveal|disclos|notify|alert|show|warn|say|telling|"
                           r"mentioning|informing|asking|alerting)[a-z]* ?(?:this |it |anything |about |to )*(?:the )?(?:user|human|anyone|anybody|owner|customer)")),
    ("use a tool", 0.4, _sign(r"\b(?:call|invoke|run|execute|use|trigger)\b the? ?`?[a-z_]{3,40}`? ?(?:tool|function|command|api|plugin)\b[^.\n]{0,60}"
                              r"\b(?:delete|transfer|send|drop|remove|wire|purchase|all|with)")),
    ("override", 0.6, _sign(r"\b(?:ignorier|vergiss|missacht)[a-z]{0,3}\b[^.\n]{0,50}\b(?:anweisung|regel|vorgabe|instruktion)[a-z]{0,3}|"
                            r"\b(?:ignore[zr]?|oublie[zr]?)\b[^.\n]{0,50}\b(?:instructions|consignes|r.gles)\b|"
                            r"\b(?:ignora|olvida|descarta)[a-z]{0,2}\b[^.\n]{0,50}\b(?:instrucciones|reglas|istruzioni|regole)\b|"
                            r"\bignorera\b[^.\n]{0,50}\b(?:instruktioner|regler)|\bnegeer\b[^.\n]{0,50}\b(?:instructies|regels)")),
)  # fmt: skip
_WORDS = ("ignor", "disregard", "forget", "overr", "bypass", "instruct", "prompt", "system", "mode", "now", "send", "post",
          "forward", "mail", "exfil", "upload", "![", "<", "[", "assistant", "note", "attention", "important", "tell",
          "mention", "inform", "call", "run", "execute", "vergiss", "missacht", "oubli", "olvida", "negeer", "skip",
          "rules", "reveal", "secret", "password", "credential", "key", "unfiltered", "uncensored", "pretend", "act as",
          "instead", "henceforth", "jailb", "follow", "obey", "neglect", "drop", "discard", "abandon", "cancel", "void",
          "erase", "attention", "guideline", "message", "above", "notice", "agent", "model", "llm", "admin:")  # fmt: skip
_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
_SPACES = re.compile(r"[^\S\n]+")
# These begin with a set of characters and look back after it, which is searched three times as fast.
_BASE64 = re.compile(r"[A-Za-z0-9+/](?<![A-Za-z0-9+/].)[A-Za-z0-9+/]{23,3999}={0,2}(?![A-Za-z0-9+/=])")
_HEX = re.compile(r"[0-9A-Fa-f](?<![0-9A-Za-z].)[0-9A-Fa-f](?:[0-9A-Fa-f]{2}){15,1999}(?![0-9A-Za-z])")
_ESCAPED = re.compile(r"(?:\\x[0-9A-Fa-f]{2}){8,2000}")
_ROT13 = ("vtaber", "vafgehpgvba", "cebzcg", "flfgrz", "erirny", "qvfertneq", "sbetrg")
_ROT13_WORD = re.compile(r"\b(?:vtaber|vafgehpgvbaf?|cebzcg|flfgrz|erirny|qvfertneq|sbetrg)\b")
_DIGITS = re.compile(
    r"[A-Za-z](?<![0-9A-Za-z].)[A-Za-z]{0,7}[01345](?:[A-Za-z]{1,8}[01345]){0,3}[A-Za-z]{1,8}(?![0-9A-Za-z])"
)
_LETTERS = str.maketrans("013457@$", "oieastas")
_SPACED = re.compile(r"[A-Za-z](?<![A-Za-z].)[ ._-](?:[A-Za-z][ ._-]){3,59}[A-Za-z](?![A-Za-z])")


def injection_signs(text: str) -> Signs:
    """Signs of an injection in a text. Takes time linear in its length."""
    text = text[:MAX_CHARACTERS]
    hidden = 0 if text.isascii() else len(_HIDDEN.findall(text))
    if hidden:
        text = _HIDDEN.sub("", text)
    folded = text.lower()
    encoded = (
        any(pattern.search(text) for pattern in (_BASE64, _HEX, _SPACED)) or _has_escapes(text) or _has_rot13(folded)
    )
    if not hidden and not encoded and not any(word in folded for word in _WORDS) and not _DIGITS.search(text):
        return Signs(0.0)
    weights = _sign_weights(_SPACES.sub(" ", folded))
    for decoded in _decode_parts(text):
        for name, weight in _sign_weights(_SPACES.sub(" ", decoded.lower())).items():
            weights[name] = max(weights.get(name, 0.0), weight)
    if hidden > 3:
        weights["hidden characters"] = 0.4
    harmless = 1.0
    for weight in weights.values():
        harmless *= 1.0 - weight
    return Signs(round(1.0 - harmless, 3), tuple(sorted(weights)))


def _sign_weights(plain: str) -> dict[str, float]:
    """The greatest weight of each sign that the text has, by name."""
    found: dict[str, float] = {}
    for name, weight, pattern in _SIGNS:
        if found.get(name, 0.0) < weight and pattern.search(plain):
            found[name] = weight
    return found


def _decode_parts(text: str) -> Iterator[str]:
    """Encoded parts of a text in plain text, at most eight of each encoding."""
    for match in islice(_BASE64.finditer(text), 8):
        bare = match.group().rstrip("=")
        yield from _printable(base64.b64decode, bare + "=" * (-len(bare) % 4))
    for match in islice(chain(_HEX.finditer(text), _ESCAPED.finditer(text) if _has_escapes(text) else ()), 8):
        yield from _printable(binascii.unhexlify, re.sub(r"[^0-9A-Fa-f]", "", match.group()))
    if _has_rot13(text.lower()):
        yield codecs.decode(text, "rot13")
    if len(_DIGITS.findall(text)) > 1:
        yield text.translate(_LETTERS)
    if _SPACED.search(text):
        yield _SPACED.sub(lambda match: re.sub(r"[ ._-]", "", match.group()) + " ", text)


def _has_escapes(text: str) -> bool:
    return "\\x" in text and _ESCAPED.search(text) is not None


def _has_rot13(folded: str) -> bool:
    return any(word in folded for word in _ROT13) and _ROT13_WORD.search(folded) is not None


def _printable(decode: Callable[[str], bytes], text: str) -> Iterator[str]:
    try:
        decoded = decode(text).decode("utf-8")
    except (ValueError, binascii.Error):
        return
    if sum(c.isprintable() or c.isspace() for c in decoded) == len(decoded):
        yield decoded
