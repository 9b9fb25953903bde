"""OpenAI-shaped requests to other providers, through the library that speaks their APIs. Loaded by the translating
service only: the library and the providers' clients are an extra, and stay out of the gateway's workers.

Decides nothing about money: each failure becomes a status that says whether it may have been billed.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import msgspec

from groundplan.core.errors import Unavailable
from groundplan.core.settings import resolve_secret
from groundplan.gateway.http.tls import ClientContexts
from groundplan.gateway.surfaces.answers import error_body
from groundplan.gateway.upstream import account
from groundplan.gateway.upstream.blocking import BLOCKS, THREADS, Blocking, InContext, for_one_call
from groundplan.gateway.upstream.hidden import sought, without
from groundplan.gateway.upstream.providers import (
    VERTEX_OPENAI,
    VERTEX_URL,
    Place,
    cannot,
    dialect,
    knows,
    unknown_field,
)
from groundplan.gateway.upstream.retold import MENDED, Chunks, completion, finished, of_google, plain
from groundplan.gateway.upstream.reworded import reworded
from groundplan.gateway.upstream.unredirected import HERE, stay

MOST_CLIENTS = 64
PATIENCE_SECONDS = 3600.0
"""How long a provider's client may wait for an answer: longer than any call, which is ended by the gateway's own times.
Some of them have a minute by default, and Anthropic's sends nothing that may take longer than it waits."""
_BLOCKED_SECONDS = 600
"""As that, of the client that blocks, whose threads nobody ends."""
_CONNECT_SECONDS = 5.0
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
_ONE_BY_ONE = _GOOGLES | {"bedrock"}
"""Several texts may be taken for the parts of one, or are asked for one by one by the library, out of our sight."""
_NEVER_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror", "EndpointConnectionError", "PoolTimeout"}
)
_UNTRACED: Mapping[str, str] = MappingProxyType({})
_trace: ContextVar[Mapping[str, str]] = ContextVar("trace", default=_UNTRACED)
"""Trace context of the request in hand, for clients that take no headers with a request."""
_CONVERTING = {
    "_convert_params": "",
    "_convert_completion_params": "",
    "_convert_messages": "messages",
    "_convert_messages_for_anthropic": "messages",
    "_convert_assistant": "messages",
    "_convert_tool_result_content": "messages",
    "_convert_images_for_bedrock": "messages",
    "_convert_content_for_anthropic": "messages",
    "_extract_images_from_message": "messages",
    "_convert_tool_calls": "messages",
    "_patch_messages": "messages",
    "_copy_messages": "messages",
    "_copy_tools": "tools",
    "_convert_tool_spec": "tools",
    "_convert_tools": "tools",
    "_build_tool_config": "tools",
    "prepare_tools": "tools",
    "_convert_tool_choice": "tool_choice",
    "_convert_response_format": "response_format",
    "_preprocess_response_format": "response_format",
}
"""Functions of the library and the providers' clients in which nothing has been sent yet, and which field each is
about. One that is not known here is taken for one that may have been billed."""
_USAGE_TOLD = {"stream_options": {"include_usage": True}}
"""How Azure's client passes on what the library has no word for."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_values = msgspec.json.Decoder(dict[str, Any]).decode


class Failed(Exception):
    """What is answered instead."""

    def __init__(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.retry_after = retry_after


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

    async def client(self, place: Place, secret: str) -> Any:
        """The client of a place. Raises whatever the library does where it cannot be made.

        It is made in a thread: the first one of a provider loads its package, for which nobody else is to wait.
        """
        way = self._way(place)
        key = (place.api, place.url, secret, *way.values())
        if (client := self._clients.get(key)) is None:
            async with self._making:
                if (client := self._clients.get(key)) is None:
                    client = self._clients[key] = await asyncio.to_thread(self._made, place, secret, way)
                    if len(self._clients) > MOST_CLIENTS:
                        self._clients.popitem(last=False)
        self._clients.move_to_end(key)
        return client

    def _way(self, place: Place) -> dict[str, Any]:
        """TLS and proxy of a place, as its files and secrets are now. Raises `Invalid` where they cannot be used."""
        if place.api != "anthropic" or (place.tls is None and place.proxy is None):
            return {}
        proxy = place.proxy
        if proxy is not None and place.proxy_key is not None:
            user, _, password = resolve_secret(place.proxy_key).partition(":")
            scheme, _, host = proxy.partition("://")
            proxy = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{host}"
        return {"verify": self._contexts.of(place.tls), "proxy": proxy}

    def _made(self, place: Place, secret: str, way: dict[str, Any]) -> Any:
        url = place.url.rstrip("/")
        for suffix in _SUFFIXES.get(place.api, ()):
            url = url.removesuffix(suffix)
        more = _patience(place.api) | dict(_options(place.api, url)) | HERE.get(place.api, {})
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
        self, place: Place, body: bytes, trace: Mapping[str, str] = _UNTRACED
    ) -> bytes | AsyncIterator[bytes]:
        """The completion as JSON, or the chunks of a stream as JSON, usage in the last one. `trace`: headers that its
        provider gets, too. Raises `Failed`."""
        asked = _read(place, body, embeddings=False)
        spoken = dialect(place.api, str(asked.get("model")))
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
                return without(msgspec.json.encode(completion(found, str(asked.get("model")))), sought(secret))
            try:
                first = await anext(found, None)
            except BaseException:
                await found.aclose()
                raise
        except Failed:
            raise
        except Exception as error:
            raise failed(error, secret, place) from error
        return self._stream(Chunks(str(asked.get("model"))), first, found, (secret, place))

    async def _asked(self, place: Place, secret: str, asked: dict[str, Any]) -> Any:
        """The library's answer. Raises whatever it does."""
        client = await self.client(place, secret)
        BLOCKS.set(place.api == "bedrock")
        if place.api != "bedrock" or not asked.get("stream"):
            return await client.acompletion(**asked)
        client, held = for_one_call(client)
        try:
            return Blocking(await client.acompletion(**asked), held, self._threads)
        except BaseException:
            held.end()
            raise

    async def _stream(self, chunks: Chunks, first: Any, rest: Any, of: tuple[str, Place]) -> AsyncIterator[bytes]:
        """Chunks, then how it ended and the usage on its own. Raises `Failed`."""
        chunk, secrets = first, sought(of[0])
        try:
            while chunk is not None:
                if (made := chunks.take(chunk)) is not None:
                    yield without(msgspec.json.encode(made), secrets)
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

    async def embed(self, place: Place, body: bytes, trace: Mapping[str, str] = _UNTRACED) -> bytes:
        """Embeddings as JSON. `trace`: as of `chat`. Raises `Failed`."""
        asked = _read(place, body, embeddings=True)
        secret = _secret(place)
        model, inputs = asked.pop("model"), asked.pop("input")
        texts = inputs if place.api in _ONE_BY_ONE and isinstance(inputs, list) else [inputs]
        each: list[dict[str, Any]] = []
        _trace.set(trace)
        asked |= _with_trace(place.api, model, trace, embeddings=True)
        try:
            client = await self.client(place, secret)
            BLOCKS.set(place.api == "bedrock")
            for text in texts:
                each.append(plain(await client.aembedding(model, text, **asked)))
        except Failed:
            raise
        except Exception as error:
            told = failed(error, secret, place)
            if each and told.status not in (400, 413, 422):
                told.status = 502  # those before it may have been billed
            raise told from error
        return msgspec.json.encode(_together(each))


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


def _together(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Several answers with embeddings as one."""
    first, rows = found[0], [row for each in found for row in each["data"]]
    data = [{**row, "index": index} for index, row in enumerate(rows)]
    read = [each["usage"]["prompt_tokens"] or each["usage"]["total_tokens"] for each in found]
    usage = dict.fromkeys(("prompt_tokens", "total_tokens"), sum(read) if all(read) else 0)  # 0: nobody counted
    return {"object": "list", "model": first["model"], "data": data, "usage": usage}


def _patience(api: str) -> dict[str, Any]:
    """How a provider's own client is told to wait for as long as `PATIENCE_SECONDS`."""
    if api in ("anthropic", "groq", "openai"):
        return {"timeout": importlib.import_module(api).Timeout(PATIENCE_SECONDS, connect=_CONNECT_SECONDS)}
    told = {"azure": "read_timeout", "cohere": "timeout", "mistral": "timeout_ms"}
    return {told[api]: PATIENCE_SECONDS if api != "mistral" else int(1000 * PATIENCE_SECONDS)} if api in told else {}


def _options(api: str, url: str) -> Iterator[tuple[str, Any]]:
    """Further arguments of a provider's own client; retries off where the library cannot turn them off."""
    if api in ("groq", "cohere"):  # the library leaves its own argument for the address unused
        yield "base_url", url
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
        once = {"total_max_attempts": 1}
        yield "config", config(retries=once, max_pool_connections=THREADS, read_timeout=_BLOCKED_SECONDS)


def _read(place: Place, body: bytes, *, embeddings: bool) -> dict[str, Any]:
    """The request's values. Raises `Failed` for what the provider cannot be told."""
    try:
        asked = _values(body)
        spoken = dialect(place.api, str(asked.get("model")))
        name = unknown_field(spoken, _fields(body), embeddings=embeddings)
    except msgspec.DecodeError as error:
        raise Failed(
            400, error_body(str(error), "body_not_json", "Send a JSON object.", "invalid_request_error")
        ) from error
    if name is not None:
        why = cannot(name, place.api)
        body = error_body(why.message, why.code, why.hint, "invalid_request_error", **why.details)
        raise Failed(400, body)
    known = knows(spoken, embeddings=embeddings)  # what else there is says nothing
    return {name: value for name, value in asked.items() if value is not None and name in known}


def _secret(place: Place) -> str:
    return "" if place.key is None else resolve_secret(place.key)


def failed(error: BaseException, secret: str, place: Place) -> Failed:
    """What is answered for an error of the library or of a provider's client."""
    field = _before_sending(error)
    status = _status(error, field)
    if status == 400 and field is None:
        status = _of_account(error) or status
    text = str(getattr(error, "message", None) or error)
    if secret:
        text = text.replace(secret, "...")
    untold = field is not None or type(error).__name__ == "UnsupportedParameterError"
    code = "field_untranslatable" if untold and status == 400 else "upstream_refused"
    if status in (400, 413, 422) and _of_length(error):
        code = account.TOO_LONG_CODES[0]
    kind = "invalid_request_error" if status in (400, 422) else "api_error"
    hint = "Check the request against what the model takes." if status in (400, 422) else "Try again later."
    after = getattr(error, "retry_after", None) or _asked_pause(error)
    details = {"field": field} if field else {}
    body = error_body(f"{place.api}: {text[:1000]}", code, hint, kind, **details)
    return Failed(status, body, None if after is None else str(after))


def _asked_pause(error: BaseException) -> str | None:
    """What Google asks for in its answer; its client keeps all of that."""
    kept = [details for each in _chain(error) if isinstance(details := getattr(each, "details", None), dict)]
    asked = next((found for each in kept if (found := account.asked_pause(msgspec.json.encode(each)))), None)
    return None if asked is None else asked.decode()


def _status(error: BaseException, field: str | None) -> int:
    """The provider's own status where it answered with an error. Otherwise one of ours: 400 was refused before it was
    sent, 503 never reached the provider, and 502 may have been worked on."""
    status = _answered(error)
    if status is not None and 400 <= status < 600:
        return status
    if status is not None and 300 <= status < 400:
        return 503  # a redirect, which is not followed
    names = [type(each).__name__ for each in _chain(error)]
    if any(name in _NEVER_SENT for name in names):
        return 503
    if status is not None or "APIResponseValidationError" in names:
        return 502
    if names[0] == "MissingApiKeyError":
        return 503
    if names[0] in ("UnsupportedParameterError", "NotImplementedError") or field is not None:
        return 400
    return 502


def _of_account(error: BaseException) -> int:
    """As `account.said`, of what the provider answered."""
    return next((status for message, code in _said(error) if (status := account.said(message, code))), 0)


def _of_length(error: BaseException) -> bool:
    """Whether the provider says that the prompt is longer than its model reads, as we or the library know it."""
    if any(type(each).__name__ == "ContextLengthExceededError" for each in _chain(error)):
        return True
    return any(account.says_too_long(message, code) for message, code in _said(error))


def _said(error: BaseException) -> Iterator[tuple[str, object]]:
    """(message, code) of what the provider answered, as its client and the library have it."""
    for each in _chain(error):
        body = getattr(each, "body", None)
        told = body.get("error", body) if isinstance(body, dict) else {"message": getattr(each, "message", None)}
        if isinstance(told, dict) and isinstance(message := told.get("message"), str):
            yield message, told.get("code")


def _answered(error: BaseException) -> int | None:
    """The status that the provider answered with; AWS's client has it in what it read."""
    for each in _chain(error):
        if isinstance(status := getattr(each, "status_code", None), int):
            return status
        read = getattr(each, "response", None)
        told = read.get("ResponseMetadata") if isinstance(read, dict) else None
        if isinstance(told, dict) and isinstance(status := told.get("HTTPStatusCode"), int):
            return status
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        original = getattr(each, "original_exception", None)
        waiting += [original if isinstance(original, BaseException) else None, each.__cause__, each.__context__]


def _before_sending(error: BaseException) -> str | None:
    """The field of a request that was refused as it was converted, so that nothing of it was sent: empty where it is
    not known which; None: it may have been sent."""
    if _answered(error) is not None:
        return None
    for each in _chain(error):
        names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(each.__traceback__)]
        converting = [_CONVERTING[name] for name in names if name in _CONVERTING]
        if converting:
            return next((field for field in reversed(converting) if field), "")
        if type(each).__name__ == "ParamValidationError" or str(getattr(each, "title", "")).endswith("Request"):
            return ""  # a client's own look at what it is to send
        if "acompletion" in names and "_acompletion" not in names and type(each).__name__ == "ValidationError":
            return _first_field(each)
    return None


def _first_field(error: Any) -> str:
    """What the library's own type of a request says is wrong with it."""
    where = error.errors()[0]["loc"]
    return str(where[0]) if where else ""
