"""OpenAI-shaped requests to other providers, through the library that speaks their APIs. Loaded by the translating
service only: the library and the providers' clients are an extra, and stay out of the gateway's workers.

Decides nothing about money: what a failure may have cost is said by `failures`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import inspect
import re
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import nullcontext
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import msgspec

from groundplan.core.errors import Unavailable
from groundplan.core.settings import resolve_secret
from groundplan.gateway.http.errors import error_body
from groundplan.gateway.http.tls import ClientContexts
from groundplan.gateway.upstream.providers import (
    VERTEX_OPENAI,
    VERTEX_URL,
    ProviderTarget,
    dialect,
    first_unsupported_field,
    limits_to_one_call,
    supported_fields,
    unsupported_field_error,
)
from groundplan.gateway.upstream.secret_masking import mask, maskable_spellings
from groundplan.gateway.upstream.translation.answers import MENDED, Chunks, completion, finished, of_google, plain
from groundplan.gateway.upstream.translation.blocking_clients import (
    BLOCKS,
    THREADS,
    Blocking,
    InContext,
    for_one_call,
    known_to_calls,
)
from groundplan.gateway.upstream.translation.connection_per_call import CONNECT_SECONDS, spread
from groundplan.gateway.upstream.translation.failures import Failed, failed
from groundplan.gateway.upstream.translation.no_redirects import HERE, stay
from groundplan.gateway.upstream.translation.requests import reworded

MOST_CLIENTS = 64
PATIENCE_SECONDS = 3600.0
"""How long a provider's client may wait for an answer: longer than any call, which is ended by the gateway's own times.
Some of them have a minute by default, and Anthropic's sends nothing that may take longer than it waits."""
_BLOCKED_SECONDS = 600
"""As that, of the client that blocks, whose threads nobody ends."""
_SUFFIXES = {
    "anthropic": ("/v1",),
    "cohere": ("/v1", "/v2"),
    "gemini": ("/v1beta", "/v1"),
    "groq": ("/openai/v1",),
    "mistral": ("/v1",),
    "ollama": ("/v1", "/api"),
}
"""What the providers' own clients add to a base URL themselves."""
_AMBIENT = frozenset({"bedrock", "vertexai"})
"""Their machines' own credentials stand in where no key is declared."""
_GOOGLES = frozenset({"gemini", "vertexai"})
_REGION = re.compile(r"//(?:[^/]+\.)?bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.(?:[^/]+\.)?(?:amazonaws\.com|api\.aws)")
"""The region in an address of Bedrock's, also of a private endpoint."""
_AT_ONCE = {"bedrock": 1, "cohere": 96, "gemini": 1, "vertexai": 1}
"""How many texts are embedded by one request: of some several may be taken for the parts of one, or are asked for one
by one by the library, out of our sight; Cohere refuses more."""
_LENGTHS = {"cohere": "output_dimension", "mistral": "output_dimension"}
"""What is called otherwise than `dimensions`; Google has a place of its own for it."""
_UNTRACED: Mapping[str, str] = MappingProxyType({})
_trace: ContextVar[Mapping[str, str]] = ContextVar("trace", default=_UNTRACED)
"""Trace context of the request in hand, for clients that take no headers with a request."""
_USAGE_TOLD = {"stream_options": {"include_usage": True}}
"""How Azure's client passes on what the library has no word for."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_values = msgspec.json.Decoder(dict[str, Any]).decode


class Providers:
    """The clients of this process, one for each place and secret."""

    def __init__(self) -> None:
        self._clients: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._making = asyncio.Lock()
        self._contexts = ClientContexts()
        self._threads = InContext(THREADS, "stream")
        try:
            self._library = importlib.import_module("any_llm")
        except ImportError as error:
            raise Unavailable(
                "the library that speaks other providers' APIs is not installed",
                code="providers_missing",
                hint="Install the extra: pip install 'groundplan[providers]'.",
            ) from error

    async def client(self, place: ProviderTarget, secret: str) -> Any:
        """The client of a place. Raises `Failed` where it cannot be made: then nothing is sent."""
        try:
            return await self._client(place, secret)
        except Failed:
            raise
        except Exception as error:
            raise _unmade(error, secret, place) from error

    async def _client(self, place: ProviderTarget, secret: str) -> Any:
        """It is made in a thread: the first one of a provider loads its package, for which nobody else is to wait.
        Raises whatever the library does."""
        way = self._way(place)
        key = (place.api, place.url, secret, *way.values())
        if (client := self._clients.get(key)) is None:
            async with self._making:
                if (client := self._clients.get(key)) is None:
                    client = await asyncio.to_thread(self._made, place, secret, way)
                    spread(place.api, client)
                    self._clients[key] = client
                    if len(self._clients) > MOST_CLIENTS:
                        self._clients.popitem(last=False)
        self._clients.move_to_end(key)
        return client

    def _way(self, place: ProviderTarget) -> dict[str, Any]:
        """TLS and proxy of a place, as its files and secrets are now. Raises `Invalid` where they cannot be used."""
        if place.api != "anthropic" or (place.tls is None and place.proxy is None):
            return {}
        proxy = place.proxy
        if proxy is not None and place.proxy_key is not None:
            user, _, password = resolve_secret(place.proxy_key).partition(":")
            scheme, _, host = proxy.partition("://")
            proxy = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{host}"
        return {"verify": self._contexts.context(place.tls), "proxy": proxy}

    def _made(self, place: ProviderTarget, secret: str, way: dict[str, Any]) -> Any:
        url = declared = place.url.rstrip("/")
        for suffix in _SUFFIXES.get(place.api, ()):
            url = url.removesuffix(suffix)
        more = _patience(place.api) | dict(_options(place.api, url, declared)) | HERE.get(place.api, {})
        if way:
            own = importlib.import_module("anthropic").DefaultAsyncHttpxClient
            more["http_client"] = own(**way, trust_env=False)
        library = self._library.AnyLLM
        if library.get_provider_class(place.api).MAX_RETRIES_SUPPORT in ("native", "mapped"):
            more["max_retries"] = 0  # retries are the gateway's: each is reserved and recorded
        key = secret or (None if place.api in _AMBIENT else "none")
        made = library.create(place.api, api_key=key, api_base=url, unified_exceptions=True, **more)
        if place.api == "bedrock":
            made.client.meta.events.register("before-call.bedrock-runtime", _trace_call)
            known_to_calls(made.client)
        if place.api == "ollama":
            _sign(made.client._client.headers, secret)
        if place.api == "vertexai":
            made._mistral_client = _mistral_at_vertex(url)
            for each in (made._mistral_client, made._get_partner_provider().client):
                each.timeout = _patience("openai")["timeout"]
        if place.api in _GOOGLES:
            made._convert_embedding_response = of_google(made._convert_embedding_response)
            made._send_with_context_cache = finished(made._send_with_context_cache)
        stay(place.api, made)
        if (mended := MENDED.get(place.api)) is not None:
            made._convert_completion_response = mended(made._convert_completion_response)
            made._convert_completion_chunk_response = mended(made._convert_completion_chunk_response)
        return made

    async def chat(
        self, place: ProviderTarget, body: bytes, trace: Mapping[str, str] = _UNTRACED
    ) -> bytes | AsyncIterator[bytes]:
        """The completion as JSON, or the chunks of a stream as JSON, usage in the last one. `trace`: headers that its
        provider gets, too. Raises `Failed`."""
        asked = _read(place, body, embeddings=False)
        spoken = dialect(place.api, str(asked.get("model")))
        one = limits_to_one_call(spoken, _values(body))
        asked = reworded(spoken, asked)
        secret = _secret(place)
        cap = asked.pop("max_completion_tokens", None)
        if cap is not None:
            asked["max_tokens"] = min(cap, asked.get("max_tokens") or cap)
        asked.pop("n", None)
        if spoken not in ("azure", VERTEX_OPENAI):
            asked.pop("stream_options", None)  # their streams report usage unasked
        elif spoken == "azure" and asked.pop("stream_options", None):
            asked["model_extras"] = _USAGE_TOLD
        _trace.set(trace)
        asked |= _with_trace(place.api, str(asked.get("model")), trace)
        try:
            found = await self._asked(place, secret, asked)
            if not asked.get("stream"):
                made = completion(found, str(asked.get("model")), one=one)
                return mask(msgspec.json.encode(made), maskable_spellings(secret))
            try:
                first = await anext(found, None)
            except BaseException:
                await found.aclose()
                raise
        except Failed:
            raise
        except Exception as error:
            raise failed(error, secret, place) from error
        return self._stream(Chunks(str(asked.get("model")), one=one), first, found, (secret, place))

    async def _asked(self, place: ProviderTarget, secret: str, asked: dict[str, Any]) -> Any:
        """The library's answer. Raises whatever it does."""
        client = await self.client(place, secret)
        BLOCKS.set(place.api == "bedrock")
        if place.api != "bedrock":
            return await client.acompletion(**asked)
        with for_one_call(client) as (one, held):
            found = await one.acompletion(**asked)
        return Blocking(found, held, self._threads) if asked.get("stream") else found

    async def _stream(
        self, chunks: Chunks, first: Any, rest: Any, of: tuple[str, ProviderTarget]
    ) -> AsyncIterator[bytes]:
        """Chunks, then how it ended and the usage on its own. Raises `Failed`."""
        chunk, secrets = first, maskable_spellings(of[0])
        try:
            while chunk is not None:
                if (made := chunks.take(chunk)) is not None:
                    yield mask(msgspec.json.encode(made), secrets)
                chunk = await anext(rest, None)
        except Exception as error:
            raise failed(error, *of) from error
        finally:
            await rest.aclose()
        for made in chunks.end():
            yield msgspec.json.encode(made)

    async def close(self) -> None:
        """Let go of the providers' connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        held = [each for client in self._clients.values() for each in vars(client).values()]
        below = [
            found for each in held for name in ("aio", "client") if (found := getattr(each, name, None)) is not None
        ]
        for each in [*held, *below]:
            if hasattr(each, "__aexit__"):
                await each.__aexit__(None, None, None)
            elif callable(end := getattr(each, "aclose", None) or getattr(each, "close", None)):
                waiting = end()
                if inspect.isawaitable(waiting):
                    await waiting
        self._clients.clear()

    async def embed(self, place: ProviderTarget, body: bytes, trace: Mapping[str, str] = _UNTRACED) -> bytes:
        """Embeddings as JSON. Each provider is asked for numbers: not all have another form, and the library reads no
        other. `trace`: as of `chat`. Raises `Failed`."""
        asked = _read(place, body, embeddings=True)
        secret = _secret(place)
        model, inputs, form = asked.pop("model"), asked.pop("input"), asked.pop("encoding_format", "float")
        if form not in ("float", "base64"):
            raise _refused(f"encoding_format {str(form)[:20]}", place)
        texts = list(_parts(inputs, _AT_ONCE.get(place.api)))
        each: list[dict[str, Any]] = []
        _trace.set(trace)
        length = asked.pop("dimensions", None)
        asked |= _with_trace(place.api, model, trace, embeddings=True)
        if length is not None and place.api in _GOOGLES:
            asked["config"] = {**asked.get("config", {}), "output_dimensionality": length}
        elif length is not None:
            asked[_LENGTHS.get(place.api, "dimensions")] = length
        try:
            client = await self.client(place, secret)
            BLOCKS.set(place.api == "bedrock")
            with for_one_call(client) if place.api == "bedrock" else nullcontext((client, None)) as (one, _):
                for text in texts:
                    each.append(plain(await one.aembedding(model, text, **asked)))
        except Failed:
            raise
        except Exception as error:
            told = failed(error, secret, place)
            if each and told.status not in (400, 413, 422):
                told.status = 502  # those before it may have been billed
            elif each:
                told.body = _with_billed(told.body, _tokens(each))
            raise told from error
        return msgspec.json.encode(_together(each, in_base64=form == "base64"))


def _sign(headers: MutableMapping[str, str], secret: str) -> None:
    """The declared key of an Ollama, for which the library has no use, and no other: its client sends any that the
    environment has (`OLLAMA_API_KEY`), to whichever address."""
    headers.pop("authorization", None)
    if secret:
        headers["authorization"] = f"Bearer {secret}"


def _mistral_at_vertex(url: str) -> Any:
    """Mistral's models at Vertex AI, at the declared address: the library's own client for them has Google's in it."""
    found = VERTEX_URL.fullmatch(url)
    if found is None:
        raise AssertionError("its options name project and location")
    host, project, location = found.groups()
    library = importlib.import_module("any_llm.providers.vertexai.mistral")
    client = library.create_mistral_client(project, location, max_retries=0)
    client.base_url = f"{host}/v1/projects/{project}/locations/{location}/publishers/mistralai/models"
    return client


def _with_trace(api: str, model: str, trace: Mapping[str, str], *, embeddings: bool = False) -> dict[str, Any]:
    """Arguments of the library that put `trace` on the provider's request."""
    headers = dict(trace)
    if not headers:
        return {}
    if api in ("anthropic", "groq"):
        return {"extra_headers": headers}
    if api == "mistral":
        return {"http_headers": headers}
    if api == "cohere":
        return {"request_options": {"additional_headers": headers}}
    if api == "azure":
        return {"headers": headers}
    if api in ("gemini", "vertexai") and embeddings:
        return {"config": {"http_options": {"headers": headers}}}
    if api == "gemini" or (api == "vertexai" and model.startswith("gemini")):
        return {"http_options": {"headers": headers}}
    return {}  # Ollama's and Bedrock's clients look at `_trace`; other makers' models at Vertex AI get none


async def _trace_request(request: Any) -> None:
    request.headers.update(_trace.get())


def _trace_call(params: dict[str, Any], **_: Any) -> None:
    params["headers"].update(_trace.get())


def _parts(inputs: Any, most: int | None) -> Iterator[Any]:
    """What each request asks for: of one text at a time the text itself."""
    if most is None or not isinstance(inputs, list):
        yield inputs
    elif most == 1:
        yield from inputs
    else:
        yield from (inputs[at : at + most] for at in range(0, len(inputs), most))


def _together(found: list[dict[str, Any]], *, in_base64: bool) -> dict[str, Any]:
    """Several answers with embeddings as one."""
    first, rows = found[0], [row for each in found for row in each["data"]]
    data = [{**row, "index": index} for index, row in enumerate(rows)]
    for row in data if in_base64 else ():
        numbers = row["embedding"]
        row["embedding"] = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii")
    usage = dict.fromkeys(("prompt_tokens", "total_tokens"), _tokens(found))
    return {"object": "list", "model": first["model"], "data": data, "usage": usage}


def _tokens(found: list[dict[str, Any]]) -> int:
    """That were read for these; 0: nobody counted."""
    read = [each["usage"]["prompt_tokens"] or each["usage"]["total_tokens"] for each in found]
    return sum(read) if all(read) else 0


def _with_billed(refusal: bytes, tokens: int) -> bytes:
    """The refusal of one part of a request, with what was read for those before it, which its provider bills."""
    told = _values(refusal)
    told["error"]["billed_tokens"] = tokens
    return msgspec.json.encode(told)


def _patience(api: str) -> dict[str, Any]:
    """How a provider's own client is told to wait for as long as `PATIENCE_SECONDS`."""
    if api in ("anthropic", "groq", "openai"):
        return {"timeout": importlib.import_module(api).Timeout(PATIENCE_SECONDS, connect=CONNECT_SECONDS)}
    told = {"azure": "read_timeout", "cohere": "timeout", "mistral": "timeout_ms"}
    return {told[api]: PATIENCE_SECONDS if api != "mistral" else int(1000 * PATIENCE_SECONDS)} if api in told else {}


def _options(api: str, url: str, declared: str) -> Iterator[tuple[str, Any]]:
    """Further arguments of a provider's own client; retries off where the library cannot turn them off. `url`: without
    what the client adds to what was `declared`."""
    if api in ("groq", "cohere"):  # the library leaves its own argument for the address unused
        yield "base_url", url
    elif api == "gemini":  # its client asks at v1 by itself, which has no preview models
        yield "http_options", {"api_version": "v1" if declared.endswith("/v1") else "v1beta"}
    elif api == "vertexai":
        found = VERTEX_URL.fullmatch(url)
        if found is None:
            told = "the url of a deployment of Vertex AI names its project and location"
            hint = "Write https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION."
            raise Failed(503, error_body(told, "provider_url", hint, "api_error"))
        yield "http_options", {"base_url": found[1]}
        yield from (("project", found[2]), ("location", found[3]))
    elif api == "azure":
        yield "retry_total", 0
    elif api == "ollama":
        yield "event_hooks", {"request": [_trace_request]}
    elif api == "bedrock":
        config = importlib.import_module("botocore.config").Config
        if (region := _REGION.search(url)) is not None:  # requests are signed for one
            yield "region_name", region[1]
        once = {"total_max_attempts": 1}
        times = {"connect_timeout": CONNECT_SECONDS, "read_timeout": _BLOCKED_SECONDS}
        yield "config", config(retries=once, max_pool_connections=THREADS, **times)


def _read(place: ProviderTarget, body: bytes, *, embeddings: bool) -> dict[str, Any]:
    """The request's values. Raises `Failed` for what the provider cannot be told."""
    try:
        asked = _values(body)
        spoken = dialect(place.api, str(asked.get("model")))
        name = first_unsupported_field(spoken, _fields(body), embeddings=embeddings)
    except msgspec.DecodeError as error:
        raise Failed(
            400, error_body(str(error), "body_not_json", "Send a JSON object.", "invalid_request_error")
        ) from error
    if name is not None:
        raise _refused(name, place)
    known = supported_fields(spoken, embeddings=embeddings)  # what else there is says nothing
    return {name: value for name, value in asked.items() if value is not None and name in known}


def _unmade(error: Exception, secret: str, place: ProviderTarget) -> Failed:
    told = failed(error, secret, place)
    told.status = 503 if told.status == 502 else told.status
    missing = next((each for each in (error, error.__cause__) if isinstance(each, ImportError)), None)
    if missing is not None:
        hint = "Install the extra: pip install 'groundplan[providers]'."
        why = f"a package that asks {place.api} is not installed: {missing}"
        told.body = error_body(why[:400], "providers_missing", hint, "api_error")
    return told


def _refused(name: str, place: ProviderTarget) -> Failed:
    why = unsupported_field_error(name, place.api)
    return Failed(400, error_body(why.message, why.code, why.hint, "invalid_request_error", **why.details))


def _secret(place: ProviderTarget) -> str:
    return "" if place.key is None else resolve_secret(place.key)
