"""Embeddings: reads requests, and writes bodies for OpenAI-shaped upstreams. Embeds nothing itself."""

from __future__ import annotations

import struct
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics.prices.provider_usage import ChatUsage
from groundplan.gateway.caching.replay_forms import EMBEDDINGS_REPLAY_FORMS
from groundplan.gateway.call import pricing
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces.body import OTHER_INPUT_FIELDS, has_tokens, read_fields, refuse_fields, repeated_bytes
from groundplan.gateway.surfaces.codec import Codec, Malformed, UpstreamAnswer
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.plain_codec import VOYAGE, PlainCodec
from groundplan.gateway.surfaces.upstream_json import decode_upstream
from groundplan.gateway.upstream import providers
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request


class _Embeddings(msgspec.Struct, frozen=True):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None
    modality: str | list[str] | None = None


class _Row(msgspec.Struct, frozen=True):
    embedding: Any = ()


class _First(msgspec.Struct, frozen=True):
    embedding: msgspec.Raw = msgspec.Raw(b"")


class _Answer(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] | None = None
    usage: ChatUsage | None = None


_encode = msgspec.json.Encoder().encode
_embeddings = msgspec.json.Decoder(_Embeddings)
_answer = msgspec.json.Decoder(_Answer).decode
_row = msgspec.json.Decoder(_Row).decode
_first = msgspec.json.Decoder(_First).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_fields_of_each = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_numbers = msgspec.json.Decoder(list[float]).decode
_BASE64 = msgspec.Raw(b'"base64"')
_NAN_PREFIXES = ("AADAfwAAwH8AAMB/", "AADA/wAAwP8AAMD/")
"""How a vector without numbers (NaN) begins in base64."""
_EMPTY_VECTOR_SIGNS = (b"[null", *(each.encode() for each in _NAN_PREFIXES))
"""An answer with none of these has only valid vectors; the last ones are of base64."""
_TOKEN_APIS = frozenset({"openai", "azure"})


def read(body: bytes) -> Ask:
    """Parse an embeddings request. Raises `Invalid` with what is wrong with it."""
    fields, request = read_fields(body, _embeddings)
    refuse_fields(fields, OTHER_INPUT_FIELDS)
    if not request.input:
        raise Invalid("input is empty", code="input_empty", hint="Send a text or a list of texts.")
    if request.modality is not None and request.modality not in ("text", ["text"]):
        hint = "Embed texts: what an image or a sound costs has no bound here, and addresses are not fetched."
        raise Invalid("modality is not text", code="content_unsupported", hint=hint)
    inputs, tokens = _count_inputs(request.input)
    each = repeated_bytes(fields)
    return Ask(
        fields=fields, model=request.model, messages=inputs, query="", stream=False, include_usage=False, cap=0,
        copies=1, size=len(body) + each * (inputs - 1), extra_tokens=tokens + each * inputs if tokens else 0, body=body,
        parsed=request.input if has_tokens(request.input) else None,
    )  # fmt: skip


def _count_inputs(given: str | list[str | int | list[int]]) -> tuple[int, int]:
    """(number of inputs, number of tokens); 0 tokens where any input is a text."""
    if isinstance(given, str):
        return 1, 0
    if all(isinstance(each, int) for each in given):
        return 1, len(given)
    lists = [each for each in given if isinstance(each, list)]
    return len(given), sum(map(len, lists)) if len(lists) == len(given) else 0


class OpenAIEmbeddings(PlainCodec):
    """Embeddings as OpenAI-shaped upstreams speak them."""

    def __init__(self) -> None:
        super().__init__(b"/embeddings")

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """As its base; for Voyage and Mistral, which refuse `dimensions`, the field is `output_dimension`."""
        if "dimensions" not in ask.fields or not (VOYAGE.match(deployment.url) or providers.is_mistral_api(deployment)):
            return super().request_body(ask, deployment, cap, system)
        length = bytes(ask.fields["dimensions"])
        changes = {"model": _encode(deployment.upstream_model), "dimensions": None, "output_dimension": length}
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Parse a whole answer. Raises `Malformed`, also where a text has no vector, or one without numbers, as failing
        servers send them: clients would store it."""
        found = decode_upstream(_answer, data)
        if not found.data:
            raise Malformed("the upstream's answer has no content")
        if len(found.data) < ask.messages:
            raise Malformed(f"the upstream's answer has {len(found.data)} vectors for {ask.messages} texts")
        packed = ask.fields.get("encoding_format") == _BASE64
        signs = _EMPTY_VECTOR_SIGNS if packed else _EMPTY_VECTOR_SIGNS[:1]
        if any(sign in data for sign in signs) and any(_has_no_numbers(each) for each in found.data):
            raise Malformed("the upstream's answer has a vector without numbers")
        if packed and bytes(_first(found.data[0]).embedding).startswith(b"["):
            data = _encode_base64(data)
        usage = found.usage.input_usage() if found.usage is not None else None
        # there is no input without a token: 0 is what servers say that count none
        return UpstreamAnswer(data, usage if usage is not None and usage.input else None)


def _has_no_numbers(row: msgspec.Raw) -> bool:
    vector = decode_upstream(_row, bytes(row)).embedding
    if isinstance(vector, str):
        return vector.startswith(_NAN_PREFIXES)
    return isinstance(vector, list) and None in vector


def _encode_base64(data: bytes) -> bytes:
    """An answer with its vectors in base64, which OpenAI's clients request by default and many servers do not know.
    Clients for Node take numbers for bytes, which makes vectors of a quarter of the length with nothing in them. An
    answer with anything but plain vectors stays as it came."""
    whole = _fields(data)
    rows = _fields_of_each(whole["data"])
    try:
        for row in rows:
            numbers = _numbers(row["embedding"])
            packed = b64encode(struct.pack(f"<{len(numbers)}f", *numbers))
            row["embedding"] = msgspec.Raw(b'"%b"' % packed)
    except (msgspec.ValidationError, KeyError, OverflowError):
        return data
    return _encode({**whole, "data": rows})


class ServiceEmbeddings(OpenAIEmbeddings):
    """Embeddings by way of the local translating service, for deployments with another API."""

    translated = True

    def path(self, deployment: Deployment) -> bytes:
        return b"/%b/embeddings" % deployment.name.encode()


class Embeddings(Interface):
    """`POST /v1/embeddings`"""

    name = "embeddings"
    deployment_kind = "embeddings"
    filters_deployments = True
    replay_forms = EMBEDDINGS_REPLAY_FORMS
    _openai = OpenAIEmbeddings()
    _service = ServiceEmbeddings()

    def read(self, request: Request) -> Ask:
        return read(request.body)

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """The deployments of the first one's model, since vectors of two models cannot be compared, whose API can
        express every field. Raises `Invalid` (`field_untranslatable`)."""
        model = deployments[0].model
        same = tuple(deployment for deployment in deployments if deployment.model == model)
        if ask.parsed is not None:
            reading = tuple(deployment for deployment in same if deployment.api in _TOKEN_APIS)
            if not reading:
                hint = "Send texts (LangChain: check_embedding_ctx_length=False), or name a model that reads tokens."
                error = f"tokens cannot be said in the API of {same[0].api}"
                raise Invalid(error, code="field_untranslatable", hint=hint, details={"field": "input"})
            same = reading
        if all(deployment.api == "openai" for deployment in same):
            return same
        return providers.capable_deployments(ask.fields, same, embeddings=True)

    def codec(self, deployment: Deployment) -> Codec:
        return self._openai if deployment.api == "openai" else self._service

    def cost_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:  # noqa: ARG002
        return pricing.cost_bound(ask, deployment, _input_tokens(ask, deployment, added), 0)

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        tokens = _input_tokens(ask, deployment, added)
        return Usage(input=tokens), pricing.cost_bound(ask, deployment, tokens, 0)


def _input_tokens(ask: Ask, deployment: Deployment, added: int) -> int:
    """Most input tokens. Input given as tokens only is counted exactly; mixed with texts, each token has at least one
    byte."""
    if ask.extra_tokens:
        return ask.extra_tokens + pricing.input_bound(deployment, added, ask.messages)
    size = ask.size + added
    return max(size, pricing.input_bound(deployment, size, ask.messages))


EMBEDDINGS = Embeddings()
