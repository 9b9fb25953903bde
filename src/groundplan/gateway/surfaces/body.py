"""Reading JSON bodies of callers: one error for each thing that can be wrong with the bytes, and the text in messages.

What the fields mean belongs to the API surfaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.http.strict_json import (
    DECODE_ERRORS,
    check_complexity,
    check_duplicate_names,
    check_name_spelling,
)
from groundplan.gateway.surfaces.file_references import given_twice
from groundplan.gateway.surfaces.messages.request_types import CacheControl

Read = TypeVar("Read")


_NONE = msgspec.Raw(b"null")


class _Image(msgspec.Struct, frozen=True):
    url: str = ""


class _Audio(msgspec.Struct, frozen=True):
    data: str = ""
    format: str = ""


class _File(msgspec.Struct, frozen=True):
    file_data: str | None = None
    file_id: str | None = None
    file_url: msgspec.Raw = _NONE


class CacheOptions(msgspec.Struct, frozen=True):
    """Of the cache of prompts at OpenAI, for a whole request or up to a part of it."""

    ttl: str | None = None

    def check(self, name: str = "prompt_cache_options") -> None:
        """Raise `Invalid` for a cache that may cost more to write than the declared price says."""
        if self.ttl not in (None, "30m"):
            raise Invalid(
                f"{name}.ttl {self.ttl[:20]!r} is not supported",
                code="field_unsupported",
                hint='A longer cache may have a price of its own; use "30m" or leave ttl out.',
            )


BREAKPOINT = "prompt_cache_breakpoint"


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    image_url: _Image | None = None
    input_audio: _Audio | None = None
    file: _File | None = None
    video_url: msgspec.Raw = _NONE
    audio_url: msgspec.Raw = _NONE
    image_embeds: msgspec.Raw = _NONE
    audio_embeds: msgspec.Raw = _NONE
    image_pil: msgspec.Raw = _NONE
    prompt_cache_breakpoint: CacheOptions | None = None
    cache_control: CacheControl | None = None

    def check(self) -> None:
        """Raise `Invalid` for what some upstreams (vLLM) read, or fetch, of a part by its name whatever type it
        has, and for a cache that costs more than is declared."""
        if self.prompt_cache_breakpoint is not None:
            self.prompt_cache_breakpoint.check(BREAKPOINT)
        if self.cache_control is not None:
            self.cache_control.check()
        others = _others(self)
        if others == _NO_OTHERS:
            return
        for name, given in zip(_NAMES, others, strict=True):
            if name != self.type and given is not None and given != _NONE:
                raise Invalid(
                    f"content of type {self.type[:40]} has {name}",
                    code="content_unsupported",
                    hint="Send each thing as a part of its own, with its type.",
                )


_NAMES = ("image_url", "input_audio", "file", "video_url", "audio_url", "image_embeds", "audio_embeds", "image_pil")
_NO_OTHERS = (None, None, None, _NONE, _NONE, _NONE, _NONE, _NONE)
_others = attrgetter(*_NAMES)


class Parts(msgspec.Struct, frozen=True):
    """What a message's content is made of."""

    text: str
    images: int = 0
    media_bytes: int = 0
    """Of the caller's body, that are images, audio and files."""
    audio_bytes: int = 0
    """Of audio, decoded."""
    files: int = 0
    named: tuple[str, ...] = ()
    """Ids of files, which are among `files`."""


_FILE_URL = re.compile(r"data:[a-z]+/[a-z0-9.+-]{1,80};base64,[A-Za-z0-9+/]+={0,2}\Z", re.ASCII)
_DATA_URL = re.compile(r"data:image/(png|jpe?g|webp|gif);base64,[A-Za-z0-9+/]+={0,2}\Z", re.ASCII)
_TABLE = {
    name: use
    for use, names in {
        "elsewhere": """
        models fallbacks provider route preset lora lora_path adapter_id data_sources enable_search
        search_parameters search_settings compound_custom plugins api_base base_url kv_transfer_params
        bootstrap_host extra_headers ref_audio
        url url[] image_url[] video_url audio_url
        """,
        "otherwise": """
        n_predict num_predict max_new_tokens max_length generation_config extra_body n_cmpl use_beam_search
        num_beams chat_template mm_processor_kwargs media_io_kwargs deferred multi_agent
        """,
        "read": """
        model messages input prompt system instructions query documents stream stream_options stream_format
        max_tokens max_completion_tokens max_output_tokens n best_of tools modalities service_tier store
        background previous_response_id audio prediction web_search_options moderation container mcp_servers
        inference_geo speed conversation context_management cache_control output_config output_format
        encoding_format image background_options prompt_cache_options reasoning thread compaction billing_policy
        modality
        """,
        "ordinary": """
        temperature top_p stop seed user metadata frequency_penalty presence_penalty logprobs top_logprobs
        logit_bias response_format tool_choice parallel_tool_calls reasoning_effort text include
        truncation stop_sequences top_k thinking dimensions verbosity
        """,
    }.items()
    for name in names.split()
}
"""Names at the top of a body, in small letters: by the first ones some upstreams ask another model or provider than the
one that is reserved for, search, or reach an address that the caller chooses; the next ones are to some the cap or the
number of copies, whatever `max_tokens` and `n` say, or let a prompt or an image have more tokens than its bytes or its
count bound, or one answer be made by any number of agents; some surface reads the next ones, or refuses them by name;
and nearly every body is made of these and the last."""


def _names(*uses: str) -> frozenset[str]:
    return frozenset(name for name, use in _TABLE.items() if use in uses)


ELSEWHERE, OTHERWISE = _names("elsewhere"), _names("otherwise")
NAMED = _names("elsewhere", "otherwise", "read")
"""By which anything is decided, so that no other spelling of them may pass."""
_ORDINARY = frozenset(_TABLE) - ELSEWHERE
"""That need no look at how they are spelled, or whether they are refused."""
READ_APART = frozenset(
    {
        "messages", "images", "image_url", "chat_template", "mm_processor_kwargs", "media_io_kwargs", "extra_body",
        "instances",
    }
)  # fmt: skip
"""Names by which what embeds or ranks texts reads something else, also images and by their addresses."""
_ONCE = frozenset({"model", "input", "query", "documents", "encoding_format", "user"})
"""Of a request for embeddings or a rank: what is said once, or counted apart."""
QUERY_CHARACTERS = 4000
"""As many of the last question are searched with."""
_LONG = 52 << 10
"""Bytes that hold as many characters, each written as two escapes."""

_IDLE = frozenset({b"null", b"false", b"[]"})
"""Values that switch nothing on and name nobody, as clients send them of settings that are not used. An empty object is
none: it may stand for all defaults, such as those of a search."""
_USAGE_TOLD = b'{"include_usage":true}'
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z", re.ASCII)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_parts = msgspec.json.Decoder(list[_Part])
_text = msgspec.json.Decoder(str)
_value = msgspec.json.Decoder().decode
_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
_encode = msgspec.json.Encoder().encode


class Reasoning(msgspec.Struct, frozen=True):
    """How a model is to reason."""

    mode: str | None = None

    def check(self) -> None:
        """Raise `Invalid` for a mode that reasons several times for one answer (OpenAI's `pro`): the cap is that of
        one, and what all of them cost has no bound. OpenRouter asks another model for it."""
        if self.mode not in (None, "standard"):
            raise Invalid(
                f"reasoning.mode {self.mode[:20]!r} is not supported",
                code="field_unsupported",
                hint='What it costs has no bound; use "standard" or leave mode out, and raise reasoning.effort.',
            )


def with_usage_told(fields: Mapping[str, msgspec.Raw]) -> bytes:
    """`stream_options` by which an upstream tells the usage of a stream; what else the caller's say stays."""
    given = fields.get("stream_options")
    options = None if given is None else _options(given)
    return _USAGE_TOLD if not options else _encode({**options, "include_usage": True})


def read_fields(
    body: bytes, decoder: msgspec.json.Decoder[Read], nested: Callable[[Read], int] | None = None
) -> tuple[dict[str, msgspec.Raw], Read]:
    """The top-level fields as raw JSON, in order, and the typed part of them. Raises `Invalid`, also for
    what is asked `ELSEWHERE`.

    Two passes, since a decoder gives either the fields that it knows or the bytes of all; neither copies what is `Raw`.
    `nested` tells how many names the typed part knows to be in objects below the top; it may know too few, which costs
    time only.
    """
    try:
        if not body.isascii():
            body.decode("utf-8")
        check_complexity(body)
        fields, typed = _fields.decode(body), decoder.decode(body)
        if not _ORDINARY.issuperset(fields):
            check_name_spelling(fields, NAMED)
            refuse_fields(fields, ELSEWHERE)
        check_duplicate_names(body, len(fields) + (nested(typed) if nested is not None else 0))
        return fields, typed
    except UnicodeDecodeError as error:
        raise Invalid("the body is not UTF-8", code="body_encoding", hint="Send JSON in UTF-8.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_read(error) from error


def not_read(error: Exception) -> Invalid:
    """The refusal of a body by what its decoder raised."""
    if isinstance(error, msgspec.ValidationError):
        return Invalid(f"the body has a wrong field: {error}", code="body_invalid", hint="See the OpenAI API.")
    return Invalid(f"the body is not JSON: {error}", code="body_not_json", hint="Send a JSON object.")


def decoded(raw: bytes) -> Any:
    """The value of a part of a body that was only passed over before, which is no look at its numbers. Raises
    `Invalid`."""
    try:
        return _value(raw)
    except DECODE_ERRORS as error:
        raise not_read(error) from error


def refuse_fields(fields: Mapping[str, msgspec.Raw], names: frozenset[str]) -> None:
    """Refuse each of these that asks for something. Raises `Invalid`."""
    if names.isdisjoint(fields):
        return
    for name, raw in fields.items():
        if name in names and bytes(raw) not in _IDLE:
            hint = f"Leave {name} out."
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=hint, details={"field": name})


def repeated(fields: Mapping[str, msgspec.Raw]) -> int:
    """Bytes of what may be said of each text that is embedded or ranked, such as an instruction: what is neither the
    texts nor a number or a list."""
    return sum(len(raw) for name, raw in fields.items() if name not in _ONCE and bytes(raw)[:1] in (b'"', b"{"))


def has_tokens(given: object) -> bool:
    """Whether a prompt or an input gives anything as tokens, which nobody but their model can read."""
    return isinstance(given, list) and not all(isinstance(each, str) for each in given)


def message_parts(content: msgspec.Raw, *, media: bool = False, thoughts: bool = False) -> Parts:
    """The parts of a message's content: text, images, with `media` audio and files, and with `thoughts` what a model
    thought before it answered, which counts by its bytes. Raises `Invalid` for others.

    Of a long string only the beginning is read, at least `QUERY_CHARACTERS`: nobody asks for more of it.
    """
    raw = bytes(content)
    if raw.startswith(b'"'):
        return Parts(_decoded_text(raw if len(raw) <= _LONG else _beginning(raw)))
    if raw == b"null":
        return Parts("")
    images = size = heard = files = 0
    named: list[str] = []
    parts = _content_parts(raw)
    for part in parts:
        part.check()
        if part.type == "image_url" and part.image_url is not None:
            images, size = images + 1, size + image_bytes(part.image_url.url)
        elif media and part.type == "input_audio" and part.input_audio is not None:
            size += len(part.input_audio.data)
            heard += _audio_bytes(part.input_audio)
        elif media and part.type == "file" and part.file is not None:
            files += 1
            size += _file_size(part.file)
            named += [part.file.file_id] if part.file.file_id is not None else []
        elif part.type not in ("text", "refusal") and not (thoughts and part.type == "thinking"):
            raise Invalid(
                f"content of type {part.type[:40]} is not supported", code="content_unsupported", hint="Send text only."
            )
    return Parts(" ".join(part.text for part in parts), images, size, heard, files, tuple(named))


def _file_size(file: _File) -> int:
    """Length of a file's content, where it is sent; 0 where it is named by its id. Raises `Invalid`."""
    if bytes(file.file_url) != b"null":
        return file_bytes(None)  # an address is refused beside its content, too
    if file.file_id is None:
        return file_bytes(file.file_data)
    if file.file_data is not None:
        raise given_twice("the file")
    return 0


def _audio_bytes(audio: _Audio) -> int:
    """Decoded length of audio that is sent in."""
    if audio.format not in ("wav", "mp3") or BASE64.match(audio.data) is None:
        raise Invalid(
            "input_audio is not audio",
            code="audio_data",
            hint="Send data as base64 without line breaks, and format wav or mp3.",
        )
    return len(audio.data) * 3 // 4


def image_bytes(url: str) -> int:
    """Length of an image that is sent in. An address is refused: whoever would fetch it reaches what the caller cannot,
    and its cost is not known before."""
    if _DATA_URL.match(url) is None:
        raise Invalid(
            "an image is given by its address",
            code="image_url",
            hint="Send the image itself: data:image/png;base64,...",
        )
    return len(url)


def file_bytes(data: str | None) -> int:
    """Length of a file that is sent in, such as a PDF. One that is given by its address is refused, as images are."""
    if data is None or _FILE_URL.match(data) is None:
        raise Invalid(
            "a file is not sent itself",
            code="file_data",
            hint="Send its content: data:application/pdf;base64,... without line breaks, or its file_id of /v1/files.",
        )
    return len(data)


def _beginning(raw: bytes) -> bytes:
    """The first part of a JSON string as a JSON string, cut before a space, which is never part of anything else."""
    end = raw.rfind(b" ", 0, _LONG)
    return raw[:end] + b'"' if end > 12 * QUERY_CHARACTERS else raw


def _decoded_text(raw: bytes) -> str:
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_read(error) from error


def _content_parts(raw: bytes) -> list[_Part]:
    try:
        return _parts.decode(raw)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"the body has a wrong field: {error} in content", code="body_invalid", hint="See the OpenAI API."
        ) from error
    except DECODE_ERRORS as error:
        raise not_read(error) from error
