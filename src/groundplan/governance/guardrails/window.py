"""The hold-back window of a streamed text: nothing leaves before what it could become part of is known. Pure.

Text is looked at together with what was let go before it, so that a find is whole; a run without a space is never cut,
so that long tokens are judged as a whole. Writing that has no spaces is cut between any two of its signs. What is
refused is told by raising `Refused`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from groundplan.governance.guardrails.checks import Checks
from groundplan.governance.guardrails.masks import Masks, is_json, unfinished
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.nested_json import Nested

BEFORE = 64
"""Characters of what was let go that are looked at again, as what stands before."""
STEP = 64
"""Text is looked at when so much more is there than is held back: not once for each event."""
LONGEST_RUN = 20_000
"""A run without a space that is longer is cut all the same."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, kana and Han signs."""
_RUN = re.compile(rf"[^\s{_UNSPACED}]*+")


class Refused(Exception):
    """A check refuses the text."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Window:
    """One text on its way. `tell` hears of every hit that was decided."""

    __slots__ = ("_before", "_behind", "_checks", "_hold", "_json", "_masks", "_shadow", "_tell", "_text", "size")

    def __init__(
        self, checks: Checks, masks: Masks, hold: int, tell: Callable[[Hit], None], *, shadow: bool = False
    ) -> None:
        self._checks = checks
        self._masks = masks
        self._hold = hold
        self._tell = tell
        self._shadow = shadow
        self._before = ""
        self._json: bool | None = None
        """The text is JSON; None: nothing of it has come."""
        self._behind = Nested()
        self._text = ""
        self.size = 0
        """Bytes so far."""

    def feed(self, text: str) -> str:
        """What may leave now. Raises `Refused`."""
        before = self.size
        self.size += len(text) if text.isascii() else len(text.encode())
        if self._checks.too_large(self.size):
            if not self._checks.too_large(before):
                self._tell(Hit("max_size", "block"))
            if not self._shadow:
                raise Refused(Refusal("output", "max_size"))
        self._text += text
        if self._json is None and self._text.strip():
            self._json = is_json(self._text)
        if not self._checks.by_part:
            cut = unfinished(self._text) if self._masks else len(self._text)
            return self._let_go(cut, [])
        if len(self._text) < self._hold + STEP:
            return ""
        return self._look(len(self._text) - self._hold)

    def end(self) -> str:
        """The rest. Raises `Refused`."""
        return self._look(len(self._text)) if self._checks.by_part else self._let_go(len(self._text), [])

    def _look(self, cut: int) -> str:
        if cut < len(self._text):
            cut = self._whole_words(min(cut, unfinished(self._text)))
            if not cut:
                return ""  # a long run without a space is not looked at again with each of its pieces
        whole = self._before + self._text
        before = len(self._before)
        hits = [hit for hit in self._checks.places(whole, json=bool(self._json)) if hit.end > before]
        moved = True
        while moved:
            moved = False
            for hit in hits:
                start = hit.start - before
                if start < cut < hit.end - before or (start < cut < len(self._text) <= hit.end - before):
                    cut, moved = max(0, start), True
        mine = [hit for hit in hits if hit.end - before <= cut]
        return self._let_go(cut, mine)

    def _whole_words(self, cut: int) -> int:
        """The beginning of the run without a space that `cut` is in."""
        if not 0 < cut < len(self._text):
            return cut
        found = _RUN.match(self._text[max(0, cut - LONGEST_RUN) : cut][::-1])
        run = found.end() if found is not None else 0
        return cut - run if run < LONGEST_RUN else cut

    def _let_go(self, cut: int, hits: list[Hit]) -> str:
        before, text = len(self._before), self._text[:cut]
        masked: list[Hit] = []
        for hit in hits:
            self._tell(hit)
            if hit.done == "block" and not self._shadow:
                raise Refused(Refusal("output", hit.check, hit.kind))
            if hit.done == "mask" and not self._shadow:
                start = max(0, hit.start - before)
                masked.append(Hit(hit.check, hit.done, start, hit.end - before, hit.kind))
        self._before = (self._before + text)[-BEFORE:]
        self._text = self._text[cut:]
        out = self._masks.mask(text, masked, keep=False) if masked else text
        return self._masks.restore(out, json=self._json, behind=self._behind)
