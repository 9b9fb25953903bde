"""The hold-back window of a streamed text: text is released once no hit can extend over it any more. Pure.

Text is checked together with the text released before it, so that hits are complete; a run without spaces is not cut,
so that long tokens are checked as one. Scripts without spaces are cut between any two characters. Refusals are raised
as `Refused`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from groundplan.governance.guardrails.checks import Checks
from groundplan.governance.guardrails.masks import Masks, complete_length, is_json
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.nested_json import JsonNesting

CONTEXT_CHARACTERS = 64
"""Characters of the released text that are checked again, as context of what follows."""
STEP_CHARACTERS = 64
"""Text is checked once it exceeds the hold-back by so much, rather than at each event."""
MAX_RUN_LENGTH = 20_000
"""Longer runs without a space are cut."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts without spaces: Thai, Lao, Burmese, Khmer, kana and Han."""
_RUN = re.compile(rf"[^\s{_UNSPACED}]*+")


class Refused(Exception):
    """A check refuses the text."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Window:
    """The held-back end of one streamed text. `on_hit` is called for every hit when it is acted on."""

    __slots__ = ("_checks", "_hold", "_json", "_masks", "_nesting", "_on_hit", "_released", "_shadow", "_text", "size")

    def __init__(
        self, checks: Checks, masks: Masks, hold: int, on_hit: Callable[[Hit], None], *, shadow: bool = False
    ) -> None:
        self._checks = checks
        self._masks = masks
        self._hold = hold
        self._on_hit = on_hit
        self._shadow = shadow
        self._released = ""
        self._json: bool | None = None
        """Whether the text is JSON; None: it is empty so far."""
        self._nesting = JsonNesting()
        self._text = ""
        self.size = 0
        """Bytes fed so far."""

    def continue_after(self, text: str) -> None:
        """Treat `text`, which was checked and released by another window, as what came before the first piece."""
        self._released = text[-CONTEXT_CHARACTERS:]
        self.size = len(text.encode())
        if text.strip():
            self._json = is_json(text)
            self._nesting.feed(text)

    def feed(self, text: str) -> str:
        """Add text; returns what may be released now. Raises `Refused`."""
        before = self.size
        self.size += len(text) if text.isascii() else len(text.encode())
        if self._checks.is_too_large(self.size):
            if not self._checks.is_too_large(before):
                self._on_hit(Hit("max_size", "block"))
            if not self._shadow:
                raise Refused(Refusal("output", "max_size"))
        self._text += text
        if self._json is None and self._text.strip():
            self._json = is_json(self._text)
        if not self._checks.has_span_checks:
            cut = complete_length(self._text) if self._masks else len(self._text)
            return self._release(cut, [])
        if len(self._text) < self._hold + STEP_CHARACTERS:
            return ""
        return self._check(len(self._text) - self._hold)

    def end(self) -> str:
        """The rest of the text, checked. Raises `Refused`."""
        return self._check(len(self._text)) if self._checks.has_span_checks else self._release(len(self._text), [])

    def _check(self, cut: int) -> str:
        if cut < len(self._text):
            cut = self._word_boundary(min(cut, complete_length(self._text)))
            if not cut:
                return ""  # a long run without a space is not checked again with each of its pieces
        before = len(self._released)
        hits = [
            hit
            for hit in self._checks.find_spans(self._released + self._text, json=bool(self._json))
            if hit.end > before
        ]
        moved = True
        while moved:
            moved = False
            for hit in hits:
                start = hit.start - before
                if start < cut < hit.end - before or (start < cut < len(self._text) <= hit.end - before):
                    cut, moved = max(0, start), True
        return self._release(cut, [hit for hit in hits if hit.end - before <= cut])

    def _word_boundary(self, cut: int) -> int:
        """Start of the run without spaces that `cut` is in; `cut` itself if the run is too long."""
        if not 0 < cut < len(self._text):
            return cut
        found = _RUN.match(self._text[max(0, cut - MAX_RUN_LENGTH) : cut][::-1])
        run = found.end() if found is not None else 0
        return cut - run if run < MAX_RUN_LENGTH else cut

    def _release(self, cut: int, hits: list[Hit]) -> str:
        before, text = len(self._released), self._text[:cut]
        masked: list[Hit] = []
        for hit in hits:
            self._on_hit(hit)
            if hit.action == "block" and not self._shadow:
                raise Refused(Refusal("output", hit.check, hit.kind))
            if hit.action == "mask" and not self._shadow:
                start = max(0, hit.start - before)
                masked.append(Hit(hit.check, hit.action, start, hit.end - before, hit.kind))
        self._released = (self._released + text)[-CONTEXT_CHARACTERS:]
        self._text = self._text[cut:]
        out = self._masks.mask(text, masked, keep=False) if masked else text
        return self._masks.restore(out, json=self._json, nesting=self._nesting)
