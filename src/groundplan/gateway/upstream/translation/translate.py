"""Sends OpenAI-shaped requests to other providers, through a library that implements their APIs. Loaded by the
translation service only: the library and the providers' clients are an extra, and stay out of the gateway's workers.

Decides nothing about money: what a failure may have cost is decided by `failures`.
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
from groundplan.gateway.upstream.translation.answer_patches import (
    ANSWER_PATCHES,
    check_gemini_end,
    patch_google_embeddings,
)
from groundplan.gateway.upstream.translation.answers import ChunkConverter, to_completion, to_dict
from groundplan.gateway.upstream.translation.blocking_clients import (
    THREADS,
    USES_BLOCKING_CLIENT,
    BlockingStream,
    ContextThreadPool,
    client_for_call,
    track_connections,
)
from groundplan.gateway.upstream.translation.connection_per_call import CONNECT_SECONDS, use_connection_per_call
from groundplan.gateway.upstream.translation.failures import ProviderFailure, failure_of
from groundplan.gateway.upstream.translation.no_redirects import NO_REDIRECT_ARGUMENTS, disable_redirects
from groundplan.gateway.upstream.translation.requests import adapt_request

MAX_CLIENTS = 64
READ_TIMEOUT_SECONDS = 3600.0
"""How long a provider's client may wait for an answer: longer than any call, which the gateway's own timeouts end. Some
clients have a minute by default, and Anthropic's sends nothing that may take longer than its timeout."""
_BLOCKING_READ_TIMEOUT_SECONDS = 600
"""As `READ_TIMEOUT_SECONDS`, for the client that blocks, whose threads nobody ends."""
_SUFFIXES = {
    "anthropic": ("/v1",),
    "cohere": ("/v1", "/v2"),
    "gemini": ("/v1beta", "/v1"),
    "groq": ("/openai/v1",),
    "mistral": ("/v1",),
    "ollama": ("/v1", "/api"),
}
"""What the providers' own clients append to a base URL."""
_AMBIENT_CREDENTIALS = frozenset({"bedrock", "vertexai"})
"""Providers for which the machine's own credentials are used if no key is declared."""
_GOOGLES = frozenset({"gemini", "vertexai"})
_REGION = re.compile(r"//(?:[^/]+\.)?bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.(?:[^/]+\.)?(?:amazonaws\.com|api\.aws)")
"""The region in an address of Bedrock's, also of a private endpoint."""
_TEXTS_PER_REQUEST = {"bedrock": 1, "cohere": 96, "gemini": 1, "vertexai": 1}
"""Texts to embed per request: some providers may take several for the parts of one, and the library would send others
one by one, out of our sight; Cohere rejects more."""
_DIMENSIONS_NAMES = {"cohere": "output_dimension", "mistral": "output_dimension"}
"""Providers that do not call it `dimensions`; Google has a separate place for it."""
_AZURE_EXTRAS = ("reasoning_effort", "max_completion_tokens")
"""Fields that Azure's client has no argument for, besides `stream_options`."""
_NO_TRACE: Mapping[str, str] = MappingProxyType({})
_trace: ContextVar[Mapping[str, str]] = ContextVar("trace", default=_NO_TRACE)
"""Trace context of the current request, for clients that take no headers with a request."""
_INCLUDE_USAGE = {"include_usage": True}
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_values = msgspec.json.Decoder(dict[str, Any]).decode


class ProviderClients:
    """The clients of this process, one for each target and secret."""

    def __init__(self) -> None:
        self._clients: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._creation_lock = asyncio.Lock()
        self._contexts = ClientContexts()
        self._threads = ContextThreadPool(THREADS, "stream")
        try:
            self._library = importlib.import_module("any_llm")
        except ImportError as error:
            raise Unavailable(
                "the library that speaks other providers' APIs is not installed",
                code="providers_missing",
                hint="Install the extra: pip install 'groundplan[providers]'.",
            ) from error

    async def client(self, target: ProviderTarget, secret: str) -> Any:
        """The client for a target. Raises `ProviderFailure` if it cannot be made: then nothing is sent."""
        try:
            return await self._get_client(target, secret)
        except ProviderFailure:
            raise
        except Exception as error:
            raise _client_failure(error, secret, target) from error

    async def _get_client(self, target: ProviderTarget, secret: str) -> Any:
        """The cached client, or one that is made in a thread: the first one of a provider loads its package, which must
        not block other calls. Raises whatever the library does."""
        connection_arguments = self._connection_arguments(target)
        key = (target.api, target.url, secret, *connection_arguments.values())
        if (client := self._clients.get(key)) is None:
            async with self._creation_lock:
                if (client := self._clients.get(key)) is None:
                    client = await asyncio.to_thread(self._create_client, target, secret, connection_arguments)
                    use_connection_per_call(target.api, client)
                    self._clients[key] = client
                    if len(self._clients) > MAX_CLIENTS:
                        self._clients.popitem(last=False)
        self._clients.move_to_end(key)
        return client

    def _connection_arguments(self, target: ProviderTarget) -> dict[str, Any]:
        """TLS and proxy of a target, as its files and secrets are now. Raises `Invalid` if they cannot be used."""
        if target.api != "anthropic" or (target.tls is None and target.proxy is None):
            return {}
        proxy = target.proxy
        if proxy is not None and target.proxy_key is not None:
            user, _, password = resolve_secret(target.proxy_key).partition(":")
            scheme, _, host = proxy.partition("://")
            proxy = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{host}"
        return {"verify": self._contexts.context(target.tls), "proxy": proxy}

    def _create_client(self, target: ProviderTarget, secret: str, connection_arguments: dict[str, Any]) -> Any:
        url = declared = target.url.rstrip("/")
        for suffix in _SUFFIXES.get(target.api, ()):
            url = url.removesuffix(suffix)
        arguments = (
            _timeout_arguments(target.api)
            | dict(_client_arguments(target.api, url, declared))
            | NO_REDIRECT_ARGUMENTS.get(target.api, {})
        )
        if connection_arguments:
            own = importlib.import_module("anthropic").DefaultAsyncHttpxClient
            arguments["http_client"] = own(**connection_arguments, trust_env=False)
        library = self._library.AnyLLM
        if library.get_provider_class(target.api).MAX_RETRIES_SUPPORT in ("native", "mapped"):
            arguments["max_retries"] = 0  # retries are the gateway's: each is reserved and recorded
        key = secret or (None if target.api in _AMBIENT_CREDENTIALS else "none")
        provider = library.create(target.api, api_key=key, api_base=url, unified_exceptions=True, **arguments)
        if target.api == "bedrock":
            provider.client.meta.events.register("before-call.bedrock-runtime", _trace_call)
            track_connections(provider.client)
        if target.api == "ollama":
            _set_ollama_key(provider.client._client.headers, secret)
        if target.api == "vertexai":
            provider._mistral_client = _mistral_at_vertex(url)
            for each in (provider._mistral_client, provider._get_partner_provider().client):
                each.timeout = _timeout_arguments("openai")["timeout"]
        if target.api in _GOOGLES:
            provider._convert_embedding_response = patch_google_embeddings(provider._convert_embedding_response)
            provider._send_with_context_cache = check_gemini_end(provider._send_with_context_cache)
        disable_redirects(target.api, provider)
        if (patch := ANSWER_PATCHES.get(target.api)) is not None:
            provider._convert_completion_response = patch(provider._convert_completion_response)
            provider._convert_completion_chunk_response = patch(provider._convert_completion_chunk_response)
        return provider

    async def chat(
        self, target: ProviderTarget, body: bytes, trace: Mapping[str, str] = _NO_TRACE
    ) -> bytes | AsyncIterator[bytes]:
        """The completion as JSON, or the chunks of a stream as JSON, usage in the last one. `trace`: headers to send to
        the provider. Raises `ProviderFailure`."""
        arguments = _decode_request(target, body, embeddings=False)
        api = dialect(target.api, str(arguments.get("model")))
        conversion = {"single_call": limits_to_one_call(api, _values(body)), "counts_bytes": api in _GOOGLES}
        arguments = adapt_request(api, arguments)
        secret = _secret(target)
        cap = arguments.pop("max_completion_tokens", None)
        if cap is not None:
            arguments["max_tokens"] = min(cap, arguments.get("max_tokens") or cap)
        arguments.pop("n", None)
        if api == "azure":
            if cap is not None:
                arguments["max_completion_tokens"] = arguments.pop("max_tokens")  # reasoning models take no other
            if extras := _azure_extras(arguments):
                arguments["model_extras"] = extras
        elif api != VERTEX_OPENAI:
            arguments.pop("stream_options", None)  # their streams report usage by default
        _trace.set(trace)
        arguments |= _trace_arguments(target.api, str(arguments.get("model")), trace)
        try:
            answer = await self._call_library(target, secret, arguments)
            if not arguments.get("stream"):
                completion = to_completion(answer, str(arguments.get("model")), **conversion)
                return mask(msgspec.json.encode(completion), maskable_spellings(secret))
            try:
                first = await anext(answer, None)
            except BaseException:
                await answer.aclose()
                raise
        except ProviderFailure:
            raise
        except Exception as error:
            raise failure_of(error, secret, target) from error
        return self._convert_stream(
            ChunkConverter(str(arguments.get("model")), **conversion), first, answer, (secret, target)
        )

    async def _call_library(self, target: ProviderTarget, secret: str, arguments: dict[str, Any]) -> Any:
        """The library's answer. Raises whatever it does."""
        client = await self.client(target, secret)
        USES_BLOCKING_CLIENT.set(target.api == "bedrock")
        if target.api != "bedrock":
            return await client.acompletion(**arguments)
        with client_for_call(client) as (own, held):
            answer = await own.acompletion(**arguments)
        return BlockingStream(answer, held, self._threads) if arguments.get("stream") else answer

    async def _convert_stream(
        self, chunks: ChunkConverter, first: Any, rest: Any, failure_context: tuple[str, ProviderTarget]
    ) -> AsyncIterator[bytes]:
        """The chunks, then the finish reason, and the usage in a chunk of its own. Raises `ProviderFailure`."""
        chunk, secrets = first, maskable_spellings(failure_context[0])
        try:
            while chunk is not None:
                if (converted := chunks.convert(chunk)) is not None:
                    yield mask(msgspec.json.encode(converted), secrets)
                chunk = await anext(rest, None)
        except Exception as error:
            raise failure_of(error, *failure_context) from error
        finally:
            await rest.aclose()
        for converted in chunks.final_chunks():
            yield msgspec.json.encode(converted)

    async def close(self) -> None:
        """Close the providers' connections."""
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

    async def embed(self, target: ProviderTarget, body: bytes, trace: Mapping[str, str] = _NO_TRACE) -> bytes:
        """Embeddings as JSON. Each provider is asked for numbers: not all have another format, and the library reads no
        other. `trace`: as in `chat`. Raises `ProviderFailure`."""
        arguments = _decode_request(target, body, embeddings=True)
        secret = _secret(target)
        model, inputs, form = arguments.pop("model"), arguments.pop("input"), arguments.pop("encoding_format", "float")
        if form not in ("float", "base64"):
            raise _unsupported_failure(f"encoding_format {str(form)[:20]}", target)
        texts = list(_split_inputs(inputs, _TEXTS_PER_REQUEST.get(target.api)))
        answers: list[dict[str, Any]] = []
        _trace.set(trace)
        length = arguments.pop("dimensions", None)
        arguments |= _trace_arguments(target.api, model, trace, embeddings=True)
        if length is not None and target.api in _GOOGLES:
            arguments["config"] = {**arguments.get("config", {}), "output_dimensionality": length}
        elif length is not None:
            arguments[_DIMENSIONS_NAMES.get(target.api, "dimensions")] = length
        try:
            client = await self.client(target, secret)
            USES_BLOCKING_CLIENT.set(target.api == "bedrock")
            with client_for_call(client) if target.api == "bedrock" else nullcontext((client, None)) as (own, _):
                for text in texts:
                    answers.append(to_dict(await own.aembedding(model, text, **arguments)))
        except ProviderFailure:
            raise
        except Exception as error:
            failure = failure_of(error, secret, target)
            if answers and failure.status not in (400, 413, 422):
                failure.status = 502  # earlier requests may have been billed
            elif answers:
                failure.body = _with_billed_tokens(failure.body, _billed_tokens(answers))
            raise failure from error
        return msgspec.json.encode(_merge_embeddings(answers, in_base64=form == "base64"))


def _azure_extras(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the fields that Azure's client has no argument for out of `arguments`: it takes them as a model's own."""
    extras = {"stream_options": _INCLUDE_USAGE} if arguments.pop("stream_options", None) else {}
    return extras | {name: arguments.pop(name) for name in _AZURE_EXTRAS if name in arguments}


def _set_ollama_key(headers: MutableMapping[str, str], secret: str) -> None:
    """Set the declared key of an Ollama, which the library ignores, and no other: its client sends any key that the
    environment has (`OLLAMA_API_KEY`), to any address."""
    headers.pop("authorization", None)
    if secret:
        headers["authorization"] = f"Bearer {secret}"


def _mistral_at_vertex(url: str) -> Any:
    """A client for Mistral's models at Vertex AI, at the declared address: the library's own client always uses
    Google's."""
    found = VERTEX_URL.fullmatch(url)
    if found is None:
        raise AssertionError("its options name project and location")
    host, project, location = found.groups()
    library = importlib.import_module("any_llm.providers.vertexai.mistral")
    client = library.create_mistral_client(project, location, max_retries=0)
    client.base_url = f"{host}/v1/projects/{project}/locations/{location}/publishers/mistralai/models"
    return client


def _trace_arguments(api: str, model: str, trace: Mapping[str, str], *, embeddings: bool = False) -> dict[str, Any]:
    """Library arguments that put `trace` on the provider's request."""
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
    return {}  # Ollama's and Bedrock's clients read `_trace`; other makers' models at Vertex AI get none


async def _trace_request(request: Any) -> None:
    request.headers.update(_trace.get())


def _trace_call(params: dict[str, Any], **_: Any) -> None:
    params["headers"].update(_trace.get())


def _split_inputs(inputs: Any, texts_per_request: int | None) -> Iterator[Any]:
    """The input of each request; with one text at a time, the text itself."""
    if texts_per_request is None or not isinstance(inputs, list):
        yield inputs
    elif texts_per_request == 1:
        yield from inputs
    else:
        yield from (inputs[at : at + texts_per_request] for at in range(0, len(inputs), texts_per_request))


def _merge_embeddings(found: list[dict[str, Any]], *, in_base64: bool) -> dict[str, Any]:
    """Several embedding answers merged into one."""
    first, rows = found[0], [row for each in found for row in each["data"]]
    data = [{**row, "index": index} for index, row in enumerate(rows)]
    for row in data if in_base64 else ():
        numbers = row["embedding"]
        row["embedding"] = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii")
    usage = dict.fromkeys(("prompt_tokens", "total_tokens"), _billed_tokens(found))
    return {"object": "list", "model": first["model"], "data": data, "usage": usage}


def _billed_tokens(found: list[dict[str, Any]]) -> int:
    """Tokens that were read for these answers; 0: unknown."""
    read = [each["usage"]["prompt_tokens"] or each["usage"]["total_tokens"] for each in found]
    return sum(read) if all(read) else 0


def _with_billed_tokens(refusal: bytes, tokens: int) -> bytes:
    """The refusal of one part of a request, with the tokens of the parts before it, which the provider bills."""
    body = _values(refusal)
    body["error"]["billed_tokens"] = tokens
    return msgspec.json.encode(body)


def _timeout_arguments(api: str) -> dict[str, Any]:
    """Arguments that set `READ_TIMEOUT_SECONDS` for a provider's own client."""
    if api in ("anthropic", "groq", "openai"):
        return {"timeout": importlib.import_module(api).Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_SECONDS)}
    names = {"azure": "read_timeout", "cohere": "timeout", "mistral": "timeout_ms"}
    return (
        {names[api]: READ_TIMEOUT_SECONDS if api != "mistral" else int(1000 * READ_TIMEOUT_SECONDS)}
        if api in names
        else {}
    )


def _client_arguments(api: str, url: str, declared: str) -> Iterator[tuple[str, Any]]:
    """Further arguments of a provider's own client; retries off if the library cannot turn them off. `url`: the
    `declared` one without what the client appends."""
    if api in ("groq", "cohere"):  # the library does not use its own argument for the address
        yield "base_url", url
    elif api == "gemini":  # by default the client uses v1, which has no preview models
        yield "http_options", {"api_version": "v1" if declared.endswith("/v1") else "v1beta"}
    elif api == "vertexai":
        found = VERTEX_URL.fullmatch(url)
        if found is None:
            message = "the url of a deployment of Vertex AI names its project and location"
            hint = "Write https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION."
            raise ProviderFailure(503, error_body(message, "provider_url", hint, "api_error"))
        yield "http_options", {"base_url": found[1]}
        yield from (("project", found[2]), ("location", found[3]))
    elif api == "azure":
        yield "retry_total", 0
    elif api == "ollama":
        yield "event_hooks", {"request": [_trace_request]}
    elif api == "bedrock":
        config = importlib.import_module("botocore.config").Config
        if (region := _REGION.search(url)) is not None:  # requests are signed for a region
            yield "region_name", region[1]
        once = {"total_max_attempts": 1}
        times = {"connect_timeout": CONNECT_SECONDS, "read_timeout": _BLOCKING_READ_TIMEOUT_SECONDS}
        yield "config", config(retries=once, max_pool_connections=THREADS, **times)


def _decode_request(target: ProviderTarget, body: bytes, *, embeddings: bool) -> dict[str, Any]:
    """The request's values. Raises `ProviderFailure` for what the provider does not support."""
    try:
        request = _values(body)
        model = str(request.get("model"))
        api = dialect(target.api, model)
        name = first_unsupported_field(api, _fields(body), model=model, embeddings=embeddings)
    except msgspec.DecodeError as error:
        raise ProviderFailure(
            400, error_body(str(error), "body_not_json", "Send a JSON object.", "invalid_request_error")
        ) from error
    if name is not None:
        raise _unsupported_failure(name, target)
    known = supported_fields(api, embeddings=embeddings)  # other fields ask for nothing
    return {name: value for name, value in request.items() if value is not None and name in known}


def _client_failure(error: Exception, secret: str, target: ProviderTarget) -> ProviderFailure:
    failure = failure_of(error, secret, target)
    failure.status = 503 if failure.status == 502 else failure.status
    missing = next((each for each in (error, error.__cause__) if isinstance(each, ImportError)), None)
    if missing is not None:
        hint = "Install the extra: pip install 'groundplan[providers]'."
        message = f"a package that asks {target.api} is not installed: {missing}"
        failure.body = error_body(message[:400], "providers_missing", hint, "api_error")
    return failure


def _unsupported_failure(name: str, target: ProviderTarget) -> ProviderFailure:
    error = unsupported_field_error(name, target.api)
    return ProviderFailure(
        400, error_body(error.message, error.code, error.hint, "invalid_request_error", **error.details)
    )


def _secret(target: ProviderTarget) -> str:
    return "" if target.key is None else resolve_secret(target.key)
