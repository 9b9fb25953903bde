"""Guardrails where there is more than text: sound, images, files, tokens. What can be looked at is looked at, the rest
is named.

A prompt for an image, a text that is to be spoken and a transcript are texts, and are checked as such. Sound, images
and files themselves, and texts that are given as tokens, no check can look at: where a workload demands checks of that
side they are refused by name, unless the workload declares them as `unchecked`. Nothing is let through unsaid.
Conversations over WebSocket are `conversation`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from groundplan.core.errors import Denied
from groundplan.gateway.surfaces.body import has_tokens
from groundplan.gateway.surfaces.upload import Upload
from groundplan.governance.guardrails.guard import Guard
from groundplan.governance.guardrails.model import Hit, Refusal

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.call.exchange import Exchange

SPEECH = "audio.speech"
LISTENING = frozenset({"audio.transcriptions", "audio.translations"})
SORTING = "rerank"
"""Its answers may repeat documents."""
CONVERSING = "realtime"
"""Offers functions later, with its session."""
DRAWING = frozenset({"images.generations", "images.edits", "images.variations"})
SENDING = frozenset({"images.edits", "images.variations"})
"""Endpoints to which images are sent."""
UNREAD = frozenset({SPEECH, *DRAWING})
"""Endpoints whose answers nobody can read before they are sent."""
_WORDS = frozenset({"words", "logprobs"})
"""Of a transcript, or a part of one, word by word."""
_NO_TEXTS = _WORDS | {"tokens", "id", "type", "object", "model", "task", "language", "speaker_id", "x_groq", "usage"}
Change = Callable[[str], str]
"""What becomes of a text; raises `Refused`."""


def sent_in(ask: Ask, endpoint: str) -> list[str]:
    """What comes in that no check can look at: `image`, `audio`, `file`, `tokens`."""
    there = {
        "image": endpoint in SENDING or (ask.images > 0 and endpoint not in DRAWING),
        "audio": endpoint in LISTENING or ask.audio_kib > 0,
        "file": "file" in ask.needs,
        "tokens": has_tokens(ask.typed) or "prompt_embeds" in ask.fields,
    }
    return [kind for kind, found in there.items() if found]


def given_out(endpoint: str) -> str:
    """What an endpoint answers with that no check can look at; empty: text. What is spoken is known from its text."""
    return "image" if endpoint in DRAWING else ""


def demanded_in(guard: Guard) -> bool:
    """Whether a workload demands that what is sent in was looked at."""
    return guard.looks_in


def demanded_out(guard: Guard) -> bool:
    """Whether a workload demands that answers were looked at."""
    return not guard.output.empty or bool(guard.whole)


def unchecked(guard: Guard, ask: Ask, endpoint: str) -> list[Refusal]:
    """What would pass without the check that the workload demands."""
    found = [Refusal("input", "unchecked", kind) for kind in sent_in(ask, endpoint) if demanded_in(guard)]
    if demanded_out(guard) and (kind := given_out(endpoint)):
        found.append(Refusal("output", "unchecked", kind))
    if endpoint == SPEECH and guard.whole:
        found.append(Refusal("output", "unchecked", "audio"))  # its text is no answer to judge
    return [each for each in found if each.kind not in guard.unchecked]


def refuse(found: list[Refusal]) -> Denied:
    """Names what cannot be looked at, and how it may pass all the same."""
    kinds = sorted({each.kind for each in found})
    hint = f"Leave it out, or have the owner of the workload declare guardrails: {{unchecked: [{', '.join(kinds)}]}}."
    return Denied(found[0].message, code="guardrail_unchecked", hint=hint)


def no_stream() -> Denied:
    """A transcript that is told while it is heard, where a check or a person is to look at it."""
    return Denied(
        "a transcript that is streamed cannot be looked at, as this workload demands",
        code="guardrail_unchecked",
        hint="Leave stream out.",
    )


def no_review(exchange: Exchange) -> Denied:
    """Answers that a person was to look at before they are sent, of an endpoint whose answers nobody can read."""
    return Denied(
        f"answers of {exchange.endpoint} cannot wait for a person, as this workload demands",
        code="review_unsupported",
        hint="Ask for text, or use another workload.",
    )


def hits(found: list[Refusal]) -> list[tuple[str, Hit]]:
    return [(each.place, Hit("unchecked", "block", kind=each.kind)) for each in found]


def form_texts(upload: Upload, change: Change) -> None:
    """Check the texts of a form that is sent on while it arrives: all must come before the bulk of its files. Raises
    `Refused`; what is masked is replaced."""
    upload.texts_first = True
    upload.reword(change)


def transcript(body: Any, change: Change) -> Any:
    """A transcript with every text of it checked, wherever it says it again: by segments, by speakers; the same object
    where nothing was changed. Raises `Refused`.

    Where something was masked, the times and log probabilities of single words are left out, and the tokens of
    segments, for they say it again.
    """
    if not isinstance(body, dict) or not isinstance(body.get("text"), str):
        return body
    made = _reworded(body, change)
    return body if made == body else _without_words(made)


def _reworded(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_reworded(each, change) for each in value]
    if not isinstance(value, dict):
        return value
    made = {name: each if name in _NO_TEXTS else _reworded(each, change) for name, each in value.items()}
    return {name: each for name, each in made.items() if not _stands_across(each, change)}


def _stands_across(value: Any, change: Change) -> bool:
    """Whether something is left that stands across two segments, or what two speakers say."""
    if not isinstance(value, list):
        return False
    said = [each["text"] for each in value if isinstance(each, dict) and isinstance(each.get("text"), str)]
    return len(said) > 1 and any(change(whole) != whole for whole in ("".join(said), " ".join(said)))


def _without_words(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_words(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {name: _without_words(each) for name, each in value.items() if name not in _WORDS}
    return made | {"tokens": []} if made.get("tokens") else made


def subtitles(text: str, change: Change) -> str:
    """A transcript as plain text, or with times between its lines. Raises `Refused`."""
    made = change(text)
    said = " ".join(line for line in made.splitlines() if line.strip() and "-->" not in line and not line.isdigit())
    if change(said) != said:
        return change(said)  # it stands across two lines with a time between them: the times are left out
    return made


def drawn(body: Any, change: Change) -> Any:
    """An answer with images: how their prompt was revised is text. Raises `Refused`."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return body
    made = [
        {**each, "revised_prompt": change(each["revised_prompt"])}
        if isinstance(each, dict) and isinstance(each.get("revised_prompt"), str)
        else each
        for each in data
    ]
    return body if made == data else {**body, "data": made}
