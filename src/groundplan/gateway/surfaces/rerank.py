"""Rerank, as Cohere, Jina and vLLM have it: a query and documents, sorted by relevance. Sorts nothing itself.

A price by request counts once for each search that the provider says it bills; at most, and where it says none, once
for each hundred documents, a document counting once for each 500 tokens, the query among them, as the providers do
who charge so.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics import price
from groundplan.economics.prices.provider_usage import MAX_TOKENS, ChatUsage
from groundplan.gateway.call import pricing
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.http.sse import append_field
from groundplan.gateway.http.strict_json import check_name_spelling
from groundplan.gateway.surfaces.body import OTHER_INPUT_FIELDS, read_fields, refuse_fields, repeated_bytes
from groundplan.gateway.surfaces.codec import Codec, UpstreamAnswer
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.plain_codec import VOYAGE, PlainCodec, malformed
from groundplan.gateway.surfaces.upstream_json import decode_upstream
from groundplan.ledger.model import Usage, UsageDetails

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request

MAX_DOCUMENTS = 10_000
_MEDIA = frozenset({"image", "image_url", "video", "video_url"})
"""Fields of documents that are not text."""
_READ_NAMES = _MEDIA | {"text", "content"}
"""Names of fields of documents that no other spelling of may pass."""
_UNIT_DOCUMENTS = 100
_DOCUMENT_BYTES = 500
"""A document of so many bytes, with the query, has at most 500 tokens, and counts once."""
_TEMPLATE_TOKENS = 128
"""Tokens of the template that a language model as reranker puts around each query and document: Qwen3's has 72."""


class _Rerank(msgspec.Struct, frozen=True):
    query: str
    documents: list[str | dict[str, Any]]
    model: str = "auto"
    top_n: int | None = None


class _Result(msgspec.Struct, frozen=True):
    index: int
    relevance_score: float


class _Billed(msgspec.Struct, frozen=True):
    search_units: float | None = None
    input_tokens: float | None = None
    total_tokens: float | None = None


class _Tokens(msgspec.Struct, frozen=True):
    input_tokens: float | None = None


class _Meta(msgspec.Struct, frozen=True):
    billed_units: _Billed | None = None
    tokens: _Tokens | None = None


class _Answer(msgspec.Struct, frozen=True):
    results: list[_Result] | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    """The results as Voyage, and older versions of Infinity, call them."""
    usage: ChatUsage | None = None
    meta: _Meta | None = None


class _Read(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None


class _Scored(msgspec.Struct, frozen=True):
    """One document of a bare list, as SGLang answers."""

    index: int
    score: float
    document: Any = None
    meta_info: _Read | None = None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"index": self.index, "relevance_score": self.score}
        if self.document is not None:
            found["document"] = {"text": self.document} if isinstance(self.document, str) else self.document
        return found


_rerank = msgspec.json.Decoder(_Rerank)
_answer = msgspec.json.Decoder(_Answer | list[_Scored]).decode
_results = msgspec.json.Decoder(list[_Result]).decode
_most = msgspec.json.Decoder(int | None).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class RerankCodec(PlainCodec):
    """The codec of rerank. `by_request`: tokens have no price, so that nothing has to be estimated."""

    def __init__(self, *, by_request: bool) -> None:
        super().__init__(b"/rerank")
        self._by_request = by_request

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """As its base; for Voyage `top_n` is `top_k`."""
        if "top_n" not in ask.fields or VOYAGE.match(deployment.url) is None:
            return super().request_body(ask, deployment, cap, system)
        most = bytes(ask.fields["top_n"])
        changes = {"model": _encode(deployment.upstream_model), "top_n": None, "top_k": most}
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """A whole answer, with its `results` where its upstream calls them otherwise. Raises `Malformed`, also for a
        document that was not sent."""
        found = decode_upstream(_answer, data)
        if isinstance(found, list):
            data, found = _standard_answer(found, ask)
        results = found.results
        if results is None:
            results = decode_upstream(_results, bytes(found.data))
            data = append_field(data, b"results", bytes(found.data))
        if not results or any(not 0 <= result.index < ask.messages for result in results):
            raise malformed()
        data = _sorted_answer(data, results, ask)
        usage = _usage(found)
        if usage is None or not usage.input:  # there is no query without a token: 0 is what servers say that count none
            usage = Usage() if self._by_request else None
        searches = _billed_searches(found)
        if usage is not None and searches:
            usage = msgspec.structs.replace(usage, details=UsageDetails(searches=searches))
        return UpstreamAnswer(data, usage)


def _standard_answer(found: list[_Scored], ask: Ask) -> tuple[bytes, _Answer]:
    """A bare list in the standard shape of an answer, with the token count if all documents report theirs."""
    results = [each.to_json() for each in found]
    read = [each.meta_info.prompt_tokens for each in found if each.meta_info is not None]
    counts = [count for count in read if count is not None]
    usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)} if len(counts) == ask.messages else None
    answer = {"model": ask.model, "results": results, **({} if usage is None else {"usage": usage})}
    return _encode(answer), msgspec.convert(answer, _Answer)


def _sorted_answer(data: bytes, results: list[_Result], ask: Ask) -> bytes:
    """The answer with the most relevant result first, and at most `top_n`: LocalAI leaves both to its caller."""
    scores = [result.relevance_score for result in results]
    most = _most(bytes(ask.fields.get("top_n", b"null"))) or len(scores)
    if len(scores) <= most and all(scores[at] <= scores[at - 1] for at in range(1, len(scores))):
        return data
    fields = _fields(data)
    rows = _rows(fields["results"])
    order = sorted(range(len(scores)), key=lambda at: -scores[at])[:most]
    return _encode({**fields, "results": [rows[at] for at in order]})


def _usage(found: _Answer) -> Usage | None:
    """The reported tokens, if any; Jina reports the total only, as LiteLLM does for others, and Xinference the
    input."""
    if found.usage is not None:
        return found.usage.input_usage()
    billed, read = (found.meta.billed_units, found.meta.tokens) if found.meta is not None else (None, None)
    tokens = (billed.input_tokens or billed.total_tokens) if billed is not None else None
    tokens = tokens or (read.input_tokens if read is not None else None)
    return Usage(input=int(tokens)) if tokens is not None and 0 <= tokens < MAX_TOKENS else None


def _billed_searches(found: _Answer) -> int:
    """The number of billed searches; 0 where it is not reported."""
    billed = found.meta.billed_units if found.meta is not None else None
    units = billed.search_units if billed is not None else None
    return ceil(units) if units is not None and 0 < units < MAX_TOKENS else 0


class Rerank(Interface):
    """`POST /v1/rerank` and `/v2/rerank`, which are the same."""

    name = "rerank"
    deployment_kind = "rerank"
    has_custom_cost = True
    _codecs = (RerankCodec(by_request=False), RerankCodec(by_request=True))

    def read(self, request: Request) -> Ask:
        fields, rerank = read_fields(request.body, _rerank, _nested_names, "Cohere's or Jina's API")
        refuse_fields(fields, OTHER_INPUT_FIELDS)
        if not rerank.documents or not rerank.query:
            raise Invalid("query or documents are empty", code="input_empty", hint="Send a query and documents.")
        if len(rerank.documents) > MAX_DOCUMENTS:
            raise Invalid(
                f"there are more than {MAX_DOCUMENTS} documents", code="documents_range", hint="Send fewer at once."
            )
        if any(isinstance(each, dict) and _has_media(each) for each in rerank.documents):
            hint = "Send texts; what an image costs has no bound here, and addresses are not fetched."
            raise Invalid("a document is not text", code="content_unsupported", hint=hint)
        if rerank.top_n is not None and rerank.top_n < 1:
            raise Invalid("top_n is below 1", code="top_n_range", hint="Use at least 1.")
        query = len(rerank.query.encode())
        room = _DOCUMENT_BYTES - min(query, _DOCUMENT_BYTES // 2)  # of a longer query they read but the beginning
        pieces = sum(-(-max(1, _document_bytes(document)) // room) for document in rerank.documents)
        return Ask(
            fields=fields, model=rerank.model, messages=len(rerank.documents), query="", stream=False,
            include_usage=False, cap=0, copies=-(-pieces // _UNIT_DOCUMENTS),
            size=len(request.body) + (query + repeated_bytes(fields)) * (len(rerank.documents) - 1), body=request.body,
        )  # fmt: skip

    def codec(self, deployment: Deployment) -> Codec:
        return self._codecs[not (deployment.rates.input or deployment.rates.output)]

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        """A model may read the query and all other texts again with each document."""
        around = _TEMPLATE_TOKENS if deployment.rates.input else 0
        more = max(0, around - deployment.input_overhead_tokens) * ask.messages
        usage = Usage(input=pricing.input_bound(deployment, ask.size, ask.messages) + more)
        return usage, self.cost(ask, deployment, usage)

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:
        rates = deployment.rates
        times = (usage.details.searches if usage.details is not None else 0) or ask.copies
        return price.cost(rates, usage) + rates.request * (times - 1)


def _has_media(document: dict[str, Any]) -> bool:
    """Whether a document has media: in a field of its own, or in a content of parts. Raises `Invalid` for a name in
    other letters."""
    check_name_spelling(document, _READ_NAMES)
    return not _MEDIA.isdisjoint(document) or isinstance(document.get("content"), list)


def _document_bytes(document: str | dict[str, Any]) -> int:
    return len(document.encode()) if isinstance(document, str) else len(msgspec.json.encode(document))


def _nested_names(rerank: _Rerank) -> int:
    return sum(len(document) for document in rerank.documents if isinstance(document, dict))


RERANK = Rerank()
