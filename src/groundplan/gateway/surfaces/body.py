"""Reads JSON request bodies: one error for each thing that can be wrong with the bytes, and the text in messages.

What the fields mean is left to the API surfaces.
"""

from __future__ import annotations

import codecs
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
from groundplan.gateway.http.surrogates import has_lone_surrogate
from groundplan.gateway.surfaces.file_references import file_given_twice
from groundplan.gateway.surfaces.messages.request_types import CacheControl

Typed = TypeVar("Typed")


OPENAI_API = "the OpenAI API"
SHAPE_ERRORS = (KeyError, TypeError, AttributeError)
"""What reading a value raises that was decoded without a type and is not of the shape that its API has."""
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
    """Settings of OpenAI's prompt cache, for a whole request or up to a part of it."""

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
        """Raise `Invalid` for media fields that do not belong to the part's type, since some upstreams (vLLM) read or
        fetch them whatever the type is, and for a cache that costs more than the declared price."""
        if self.prompt_cache_breakpoint is not None:
            self.prompt_cache_breakpoint.check(BREAKPOINT)
        if self.cache_control is not None:
            self.cache_control.check()
        others = _media_fields_of(self)
        if others == _NO_MEDIA:
            return
        for name, given in zip(_MEDIA_FIELDS, others, strict=True):
            if name != self.type and given is not None and given != _NONE:
                raise Invalid(
                    f"content of type {self.type[:40]} has {name}",
                    code="content_unsupported",
                    hint="Send each thing as a part of its own, with its type.",
                )


_MEDIA_FIELDS = (
    "image_url",
    "input_audio",
    "file",
    "video_url",
    "audio_url",
    "image_embeds",
    "audio_embeds",
    "image_pil",
)
_NO_MEDIA = (None, None, None, _NONE, _NONE, _NONE, _NONE, _NONE)
_media_fields_of = attrgetter(*_MEDIA_FIELDS)


class Parts(msgspec.Struct, frozen=True):
    """The content of a message: its text, and counts of its other parts."""

    text: str
    images: int = 0
    media_bytes: int = 0
    """Bytes of the request body that are images, audio and files."""
    audio_bytes: int = 0
    """Decoded length of the audio."""
    files: int = 0
    file_ids: tuple[str, ...] = ()
    """Ids of the files that are given by id; these are counted in `files` too."""


_FILE_URL = re.compile(r"data:[a-z]+/[a-z0-9.+-]{1,80};base64,[A-Za-z0-9+/]+={0,2}\Z", re.ASCII)
_DATA_URL = re.compile(r"data:image/(png|jpe?g|webp|gif);base64,[A-Za-z0-9+/]+={0,2}\Z", re.ASCII)
_USES_OF_FIELDS = {
    name: use
    for use, names in {
        "redirecting": """
        models fallbacks provider route preset lora lora_path adapter_id data_sources enable_search
        search_parameters search_settings compound_custom plugins api_base base_url kv_transfer_params
        bootstrap_host extra_headers ref_audio
        url url[] image_url[] video_url audio_url
        """,
        "unbounded": """
        n_predict num_predict max_new_tokens max_length generation_config extra_body n_cmpl use_beam_search
        num_beams chat_template mm_processor_kwargs media_io_kwargs deferred multi_agent
        """,
        "decisive": """
        model messages input prompt system instructions query documents stream stream_options stream_format
        max_tokens max_completion_tokens max_output_tokens n best_of tools modalities service_tier store
        background previous_response_id audio prediction web_search_options moderation container mcp_servers
        inference_geo speed conversation context_management cache_control output_config output_format
        encoding_format image background_options prompt_cache_options reasoning thread compaction billing_policy
        modality functions prompt_embeds
        size quality partial_images num_images num_images_per_prompt num_outputs num_outputs_per_prompt batch_size
        batch_count svg frame_count images image_url image_urls mask markup reference_images ref_images file files
        voice top_n instances
        """,
        "ordinary": """
        temperature top_p stop seed user metadata frequency_penalty presence_penalty logprobs top_logprobs
        logit_bias response_format tool_choice parallel_tool_calls reasoning_effort text include
        truncation stop_sequences top_k thinking dimensions verbosity
        """,
    }.items()
    for name in names.split()
}
"""Top-level field names, in lower case, by what they do. `redirecting`: make some upstreams ask another model or
provider than the one that money is reserved for, search, or fetch an address that the caller chooses. `unbounded`: are
the cap or the number of copies for some upstreams, whatever `max_tokens` and `n` say, or let a prompt or an image have
more tokens than its bytes or its count bound, or one answer be made by any number of agents. `decisive`: some surface
reads them, or refuses them by name. Nearly every body consists of these and of the `ordinary` ones."""


def _fields_used(*uses: str) -> frozenset[str]:
    return frozenset(name for name, use in _USES_OF_FIELDS.items() if use in uses)


REDIRECTING_FIELDS, UNBOUNDED_FIELDS = _fields_used("redirecting"), _fields_used("unbounded")
DECISIVE_FIELDS = _fields_used("redirecting", "unbounded", "decisive")
"""Fields that decide something, so that no other spelling of their names may pass."""
_UNCHECKED_FIELDS = frozenset(_USES_OF_FIELDS) - REDIRECTING_FIELDS
"""Known fields whose spelling need not be checked, and which are not refused here."""
OTHER_INPUT_FIELDS = frozenset(
    {
        "messages", "images", "image_url", "chat_template", "mm_processor_kwargs", "media_io_kwargs", "extra_body",
        "instances",
    }
)  # fmt: skip
"""Fields from which embedding and rerank servers read other input than texts, such as images, also by their URLs."""
_FIELDS_SENT_ONCE = frozenset({"model", "input", "query", "documents", "encoding_format", "user"})
"""Fields of an embeddings or rerank request that count once, or are counted separately."""
QUERY_CHARACTERS = 4000
"""The search for passages uses at most this many characters of the last question."""
_LONG_STRING_BYTES = 52 << 10
"""Bytes that hold `QUERY_CHARACTERS` with every character written as two escapes."""

_IDLE_VALUES = frozenset({b"null", b"false", b"[]"})
"""Values that switch nothing on, as clients send them for unused settings. An empty object is not among them: it may
stand for all defaults, such as those of a search."""
_USAGE_ONLY = b'{"include_usage":true}'
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z", re.ASCII)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_parts = msgspec.json.Decoder(list[_Part])
_text = msgspec.json.Decoder(str)
_value = msgspec.json.Decoder().decode
_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
_encode = msgspec.json.Encoder().encode


class Reasoning(msgspec.Struct, frozen=True):
    """The `reasoning` settings of a request."""

    mode: str | None = None

    def check(self) -> None:
        """Raise `Invalid` for a mode that reasons several times for one answer (OpenAI's `pro`): the cap holds for one
        run only, so the total cost has no bound. OpenRouter asks another model for it."""
        if self.mode not in (None, "standard"):
            raise Invalid(
                f"reasoning.mode {self.mode[:20]!r} is not supported",
                code="field_unsupported",
                hint='What it costs has no bound; use "standard" or leave mode out, and raise reasoning.effort.',
            )


def stream_options_with_usage(fields: Mapping[str, msgspec.Raw]) -> bytes:
    """The caller's `stream_options` with `include_usage`, so that the upstream reports the usage of the stream."""
    raw = fields.get("stream_options")
    options = None if raw is None else _options(raw)
    return _USAGE_ONLY if not options else _encode({**options, "include_usage": True})


def read_fields(
    body: bytes,
    decoder: msgspec.json.Decoder[Typed],
    nested: Callable[[Typed], int] | None = None,
    api: str = OPENAI_API,
) -> tuple[dict[str, msgspec.Raw], Typed]:
    """(top-level fields as raw JSON, in order; the body decoded by `decoder`). Raises `Invalid`, also for
    `REDIRECTING_FIELDS`.

    Two passes, since a decoder gives either the fields that it knows or the bytes of all; neither copies what is `Raw`.
    `nested` returns how many names the typed part knows of in objects below the top; too few costs time only. `api`
    names the API that says what a body looks like.
    """
    try:
        if not body.isascii():
            body.decode("utf-8")
        check_complexity(body)
        fields, typed = _fields.decode(body), decoder.decode(body)
        if not _UNCHECKED_FIELDS.issuperset(fields):
            check_name_spelling(fields, DECISIVE_FIELDS)
            refuse_fields(fields, REDIRECTING_FIELDS)
        check_duplicate_names(body, len(fields) + (nested(typed) if nested is not None else 0))
        return fields, typed
    except UnicodeDecodeError as error:
        raise Invalid("the body is not UTF-8", code="body_encoding", hint="Send JSON in UTF-8.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise unreadable_body(error, api, body) from error


def unreadable_body(error: Exception, api: str = OPENAI_API, body: bytes = b"") -> Invalid:
    """The refusal of a body whose decoder raised `error`; `api` as for `read_fields`."""
    if isinstance(error, msgspec.ValidationError):
        return Invalid(f"the body has a wrong field: {error}", code="body_invalid", hint=f"See {api}.")
    if has_lone_surrogate(body):
        hint = "A text was cut inside a character such as an emoji: cut it between characters."
        return Invalid("the body has half of a surrogate pair (\\uD800 to \\uDFFF)", code="body_not_json", hint=hint)
    if body.startswith(codecs.BOM_UTF8):
        return Invalid("the body begins with a byte order mark", code="body_not_json", hint="Send JSON without it.")
    return Invalid(f"the body is not JSON: {error}", code="body_not_json", hint="Send a JSON object.")


def malformed_field(name: str, error: Exception, api: str) -> Invalid:
    """The refusal of a field (`name`) in which reading a member raised `error`, one of `SHAPE_ERRORS`; `api` names the
    API that says what it looks like."""
    wrong = f"an object in it has no {error}" if isinstance(error, KeyError) else "a value in it is of the wrong type"
    hint = f"See {api}."
    return Invalid(f"{name} cannot be read: {wrong}", code="body_invalid", hint=hint, details={"field": name})


def decode_value(raw: bytes) -> Any:
    """Decode a part of a body that so far was only skipped, so that its numbers are unchecked. Raises `Invalid`."""
    try:
        return _value(raw)
    except DECODE_ERRORS as error:
        raise unreadable_body(error) from error


def refuse_fields(fields: Mapping[str, msgspec.Raw], names: frozenset[str]) -> None:
    """Raise `Invalid` for the first of these fields that is set to anything but an idle value."""
    if names.isdisjoint(fields):
        return
    for name, raw in fields.items():
        if name in names and bytes(raw) not in _IDLE_VALUES:
            hint = f"Leave {name} out."
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=hint, details={"field": name})


def repeated_bytes(fields: Mapping[str, msgspec.Raw]) -> int:
    """Bytes of the fields that a server may repeat with each text that it embeds or ranks, such as an instruction: all
    strings and objects but the texts themselves."""
    return sum(
        len(raw) for name, raw in fields.items() if name not in _FIELDS_SENT_ONCE and bytes(raw)[:1] in (b'"', b"{")
    )


def has_tokens(prompt: object) -> bool:
    """Whether a prompt or an input has anything given as tokens, which only their own model can read."""
    return isinstance(prompt, list) and not all(isinstance(each, str) for each in prompt)


def message_parts(content: msgspec.Raw, *, media: bool = False, thoughts: bool = False) -> Parts:
    """Read a message's content: text and images; with `media` also audio and files; with `thoughts` also a model's
    earlier reasoning, which counts by its bytes. Raises `Invalid` for other parts.

    Of a long string only the beginning is decoded, at least `QUERY_CHARACTERS`: no more is ever used.
    """
    raw = bytes(content)
    if raw.startswith(b'"'):
        return Parts(_decode_text(raw if len(raw) <= _LONG_STRING_BYTES else _truncated_string(raw)))
    if raw == b"null":
        return Parts("")
    images = size = audio = files = 0
    file_ids: list[str] = []
    parts = _decode_parts(raw)
    for part in parts:
        part.check()
        if part.type == "image_url" and part.image_url is not None:
            images, size = images + 1, size + image_bytes(part.image_url.url)
        elif media and part.type == "input_audio" and part.input_audio is not None:
            size += len(part.input_audio.data)
            audio += _audio_bytes(part.input_audio)
        elif media and part.type == "file" and part.file is not None:
            files += 1
            size += _file_size(part.file)
            file_ids += [part.file.file_id] if part.file.file_id is not None else []
        elif part.type not in ("text", "refusal") and not (thoughts and part.type == "thinking"):
            raise _unsupported_part(part.type, media=media)
    return Parts(" ".join(part.text for part in parts), images, size, audio, files, tuple(file_ids))


def _unsupported_part(kind: str, *, media: bool) -> Invalid:
    """The refusal of a part of a type that is not taken, or that lacks what its type is about."""
    taken = ("image_url", "input_audio", "file") if media else ("image_url",)
    wrong = f"content of type {kind[:40]} is not supported"
    hint = "Send text, images, audio and files." if media else "Send text and images."
    if kind in taken:
        wrong, hint = f"a part of type {kind} has no {kind}", "See the OpenAI API."
    return Invalid(wrong, code="content_unsupported", hint=hint)


def _file_size(file: _File) -> int:
    """Length of a file's content; 0 where the file is named by its id. Raises `Invalid`."""
    if bytes(file.file_url) != b"null":
        return file_bytes(None)  # a URL is refused, even next to the content
    if file.file_id is None:
        return file_bytes(file.file_data)
    if file.file_data is not None:
        raise file_given_twice("the file")
    return 0


def _audio_bytes(audio: _Audio) -> int:
    """Decoded length of an audio part. Raises `Invalid`."""
    if audio.format not in ("wav", "mp3") or BASE64.match(audio.data) is None:
        raise Invalid(
            "input_audio is not audio",
            code="audio_data",
            hint="Send data as base64 without line breaks, and format wav or mp3.",
        )
    return len(audio.data) * 3 // 4


def image_bytes(url: str) -> int:
    """Length of an image given as a data URL. Raises `Invalid` for any other URL: a server that fetched it could reach
    what the caller cannot, and its cost would not be known before."""
    if _DATA_URL.match(url) is None:
        raise Invalid(
            "an image is given by its address",
            code="image_url",
            hint="Send the image itself: data:image/png;base64,...",
        )
    return len(url)


def file_bytes(data: str | None) -> int:
    """Length of a file given as a data URL, such as a PDF. Raises `Invalid` for any other URL, as for images."""
    if data is None or _FILE_URL.match(data) is None:
        raise Invalid(
            "a file is not sent itself",
            code="file_data",
            hint="Send its content: data:application/pdf;base64,... without line breaks, or its file_id of /v1/files.",
        )
    return len(data)


def _truncated_string(raw: bytes) -> bytes:
    """The beginning of a JSON string as a JSON string, cut before a space, which is never part of an escape."""
    end = raw.rfind(b" ", 0, _LONG_STRING_BYTES)
    return raw[:end] + b'"' if end > 12 * QUERY_CHARACTERS else raw


def _decode_text(raw: bytes) -> str:
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unreadable_body(error) from error


def _decode_parts(raw: bytes) -> list[_Part]:
    try:
        return _parts.decode(raw)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"the body has a wrong field: {error} in content", code="body_invalid", hint="See the OpenAI API."
        ) from error
    except DECODE_ERRORS as error:
        raise unreadable_body(error) from error
