"""Guardrails for media: sound, images, files and tokens. What can be checked is checked, the rest is refused by name.

A prompt for an image, a text that is to be spoken and a transcript are texts, and are checked as such. No check can
read sound, images and files themselves, nor texts that are given as tokens: if a workload demands checks of that side
they are refused by name, unless the workload declares them as `unchecked`. Nothing passes silently. Conversations over
WebSocket are `conversation`'s.
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
TRANSCRIPTION_ENDPOINTS = frozenset({"audio.transcriptions", "audio.translations"})
RERANK = "rerank"
"""Its answers may repeat documents."""
REALTIME = "realtime"
"""Offers functions later, with its session."""
IMAGE_ENDPOINTS = frozenset({"images.generations", "images.edits", "images.variations"})
IMAGE_INPUT_ENDPOINTS = frozenset({"images.edits", "images.variations"})
"""Endpoints that take images as input."""
UNREADABLE_ENDPOINTS = frozenset({SPEECH, *IMAGE_ENDPOINTS})
"""Endpoints whose answers no reviewer can read before they are sent."""
_WORD_FIELDS = frozenset({"words", "logprobs"})
"""Word-by-word fields of a transcript, or of a part of one."""
_NON_TEXT_FIELDS = _WORD_FIELDS | {
    "tokens",
    "id",
    "type",
    "object",
    "model",
    "task",
    "language",
    "speaker_id",
    "x_groq",
    "usage",
}
ChangeText = Callable[[str], str]
"""Returns the text to put in a text's place; raises `Refused`."""


def unchecked_input(ask: Ask, endpoint: str) -> list[str]:
    """The parts of the input that no check can read: `image`, `audio`, `file`, `tokens`."""
    present = {
        "image": endpoint in IMAGE_INPUT_ENDPOINTS or (ask.images > 0 and endpoint not in IMAGE_ENDPOINTS),
        "audio": endpoint in TRANSCRIPTION_ENDPOINTS or ask.audio_kib > 0,
        "file": "file" in ask.needs,
        "tokens": has_tokens(ask.parsed) or "prompt_embeds" in ask.fields,
    }
    return [kind for kind, found in present.items() if found]


def unchecked_output(endpoint: str) -> str:
    """The kind of an endpoint's output that no check can read; empty: text. Spoken output is known from its text."""
    return "image" if endpoint in IMAGE_ENDPOINTS else ""


def demands_input_checks(guard: Guard) -> bool:
    """Whether a workload demands checks of the input."""
    return guard.checks_input


def demands_output_checks(guard: Guard) -> bool:
    """Whether a workload demands checks of answers."""
    return not guard.output.is_empty or bool(guard.whole_answer_checks)


def unchecked_refusals(guard: Guard, ask: Ask, endpoint: str) -> list[Refusal]:
    """Refusals of what would pass without a check that the workload demands."""
    found = [
        Refusal("input", "unchecked", kind) for kind in unchecked_input(ask, endpoint) if demands_input_checks(guard)
    ]
    if demands_output_checks(guard) and (kind := unchecked_output(endpoint)):
        found.append(Refusal("output", "unchecked", kind))
    if endpoint == SPEECH and guard.whole_answer_checks:
        found.append(Refusal("output", "unchecked", "audio"))  # its text is not an answer to judge
    return [each for each in found if each.kind not in guard.unchecked]


def unchecked_error(found: list[Refusal]) -> Denied:
    """The error that names what cannot be checked, and how it may pass all the same."""
    kinds = sorted({each.kind for each in found})
    hint = f"Leave it out, or have the owner of the workload declare guardrails: {{unchecked: [{', '.join(kinds)}]}}."
    return Denied(found[0].message, code="guardrail_unchecked", hint=hint)


def stream_error() -> Denied:
    """The error for a streamed transcript that a check or a reviewer has to see first."""
    return Denied(
        "a transcript that is streamed cannot be looked at, as this workload demands",
        code="guardrail_unchecked",
        hint="Leave stream out.",
    )


def review_error(exchange: Exchange) -> Denied:
    """The error for an endpoint whose answers a reviewer cannot read, in a workload with reviewers."""
    return Denied(
        f"answers of {exchange.endpoint} cannot wait for a person, as this workload demands",
        code="review_unsupported",
        hint="Ask for text, or use another workload.",
    )


def unchecked_hits(found: list[Refusal]) -> list[tuple[str, Hit]]:
    return [(each.place, Hit("unchecked", "block", kind=each.kind)) for each in found]


def check_form_texts(upload: Upload, change: ChangeText) -> None:
    """Check the texts of a form that is passed on while it arrives: all must come before the bulk of its files. Raises
    `Refused`; masked texts are replaced."""
    upload.texts_first = True
    upload.reword(change)


def check_transcript(body: Any, change: ChangeText) -> Any:
    """A transcript with all its texts checked, also where they are repeated by segments or speakers; the same object if
    nothing was changed. Raises `Refused`.

    If something was masked, the times and log probabilities of single words, and the tokens of segments, are left out,
    since they repeat it.
    """
    if not isinstance(body, dict) or not isinstance(body.get("text"), str):
        return body
    checked = _change_texts(body, change)
    return body if checked == body else _without_word_fields(checked)


def _change_texts(value: Any, change: ChangeText) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_change_texts(each, change) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {name: each if name in _NON_TEXT_FIELDS else _change_texts(each, change) for name, each in value.items()}
    return {name: each for name, each in changed.items() if not _spans_parts(each, change)}


def _spans_parts(value: Any, change: ChangeText) -> bool:
    """Whether a text remains that spans two segments, or the parts of two speakers."""
    if not isinstance(value, list):
        return False
    texts = [each["text"] for each in value if isinstance(each, dict) and isinstance(each.get("text"), str)]
    return len(texts) > 1 and any(change(joined) != joined for joined in ("".join(texts), " ".join(texts)))


def _without_word_fields(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_word_fields(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _without_word_fields(each) for name, each in value.items() if name not in _WORD_FIELDS}
    return kept | {"tokens": []} if kept.get("tokens") else kept


def check_plain_transcript(text: str, change: ChangeText) -> str:
    """A transcript as plain text, or as subtitles. Raises `Refused`."""
    checked = change(text)
    spoken = " ".join(
        line for line in checked.splitlines() if line.strip() and "-->" not in line and not line.isdigit()
    )
    if change(spoken) != spoken:
        return change(spoken)  # the text spans two lines with a time between them: the times are left out
    return checked


def check_revised_prompts(body: Any, change: ChangeText) -> Any:
    """An answer with images, with its revised prompts checked. Raises `Refused`."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return body
    checked = [
        {**each, "revised_prompt": change(each["revised_prompt"])}
        if isinstance(each, dict) and isinstance(each.get("revised_prompt"), str)
        else each
        for each in data
    ]
    return body if checked == data else {**body, "data": checked}
