"""Paths that the gateway does not serve, each with the reason and what to do instead.

Endpoints of official clients are refused by name, so that their callers learn more than that there is no such path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from groundplan.core.errors import Invalid, NotFound

_STORED_AT_PROVIDER = "It keeps things at a provider, or runs there, without a bound of cost. "
_ACCOUNT = "It is about an account at a provider: ask the provider itself."
_TALK = "Connect to /v1/realtime by WebSocket, with an API key of this gateway."
_RESPONSES = "Use /v1/responses, with previous_response_id or the earlier items in input."
_SOURCES = "Declare a source of the workload, whose passages are put before the model here."
_OPENAI = ": OpenAI's clients want a base URL that ends with /v1"
_ADDS = ": this client adds /v1 to its base URL itself"
_SLASH = ": this client adds a slash to its base URL itself, which has to end without one"
_AS_OPENAI = 'Use OpenAI(base_url="https://HOST/v1", api_key="gp_...")'
_HEALTH = re.compile(rb"/(?:v1/)?(?:health(?:z|check)?|ready|readiness|live|liveness|ping|status)(?:/\w*)?$")
"""Where other gateways and proxies tell whether they are well."""
_AZURE = re.compile(rb"/openai/(?:v1/)?deployments/")
"""Paths of a deployment in Azure's own client; those that are served are mapped in `azure_paths`."""
_GOOGLE = (
    rb"/v1(?:alpha|beta)\d*/|/v1/(?:models|publishers|projects)/.+:(?:(?:batchG|g|streamG)enerateContent|countTokens"
    rb"|computeTokens|(?:asyncBatchE|batchE|e)mbedContents?|predict(?:LongRunning)?)$"
)
_OLLAMA = (
    rb"/api/(?:chat|generate|embed|embeddings|tags|show|ps|version|pull|push|create|copy|delete|blobs/.*"
    rb"|web_search|web_fetch)$"
)
_OTHER_PROVIDERS = tuple(
    (re.compile(pattern), whose, hint)
    for pattern, whose, hint in (
        (_GOOGLE, "Google's", ""),
        (_OLLAMA, "Ollama's", ""),
        (
            rb"/v[12]/(?:chat|embed|embed-jobs|generate|summarize|classify|tokenize|detokenize)$",
            "Cohere's",
            "Its rerank is served; chat and embeddings are asked for with OpenAI's client.",
        ),
        (rb"/v1/fim/completions$", "Mistral's", "Use /v1/completions, with suffix, where a deployment serves them."),
        (
            rb"/(?:key|user|team|organization|customer|budget|spend|global|model|model_group)/[a-z_/]+$|/v1/model/info$",
            "LiteLLM's",
            "`groundplan keys create` makes keys, all else is declared (docs/importing.md). Models: /v1/models.",
        ),
        (rb"/v1/ocr$", "Mistral's", "Send the file in a message of /v1/chat/completions."),
        (rb"/v1/(?:chat/moderations|(?:chat/)?classifications)$", "Mistral's", "Use /v1/moderations."),
        (rb"/v1/libraries(?:/|$)", "Mistral's", _STORED_AT_PROVIDER + _SOURCES),
        (rb"/v1/(?:multimodal|contextualized)embeddings$", "Voyage's", "Use /v1/embeddings, with texts."),
    )
)
"""Paths of other providers' clients, whose they are, and a hint; empty: use OpenAI's client."""
NOT_SERVED = {
    "agents": _STORED_AT_PROVIDER + _RESPONSES,
    "assistants": _STORED_AT_PROVIDER + _RESPONSES,
    "audio/voice_consents": _STORED_AT_PROVIDER + "Name one of the provider's own voices.",
    "audio/voices": _STORED_AT_PROVIDER + "Name one of the provider's own voices.",
    "chatkit": _STORED_AT_PROVIDER + _RESPONSES,
    "complete": "Use /v1/messages.",
    "compliance": _ACCOUNT,
    "containers": _STORED_AT_PROVIDER + "Run tools at the caller: they are functions.",
    "content_provenance_checks": _ACCOUNT,
    "conversations": _STORED_AT_PROVIDER + _RESPONSES,
    "decisions": _STORED_AT_PROVIDER + "Use /v1/moderations, or guardrails of the workload.",
    "deployment_runs": _STORED_AT_PROVIDER + "Use /v1/messages.",
    "deployments": _STORED_AT_PROVIDER + "Use /v1/messages.",
    "dreams": _STORED_AT_PROVIDER + "Use /v1/messages.",
    "environments": _STORED_AT_PROVIDER + "Use /v1/messages.",
    "evals": _STORED_AT_PROVIDER + "Experiments and replays of a workload compare models here.",
    "fine_tuning": _STORED_AT_PROVIDER + "Make the model at the provider, then declare a deployment of it.",
    "live": _TALK,
    "memory_stores": _STORED_AT_PROVIDER + _SOURCES,
    "organization": _ACCOUNT,
    "organizations": _ACCOUNT,
    "projects": _ACCOUNT,
    "realtime/calls": _TALK,
    "realtime/client_secrets": _TALK,
    "realtime/sessions": _TALK,
    "realtime/transcription_sessions": _TALK + " Transcribe by /v1/audio/transcriptions.",
    "realtime/translations": _TALK,
    "responses/compact": "Leave earlier items out of input, or ask for a summary of them by /v1/responses.",
    "safety": _ACCOUNT,
    "sessions": _STORED_AT_PROVIDER + "Use /v1/messages.",
    "skills": _STORED_AT_PROVIDER + "Say it in the workload's prompt, or in instructions.",
    "threads": _STORED_AT_PROVIDER + _RESPONSES,
    "tunnels": _ACCOUNT,
    "user_profiles": _ACCOUNT,
    "vaults": _ACCOUNT,
    "vector_stores": _STORED_AT_PROVIDER + _SOURCES,
    "videos": _STORED_AT_PROVIDER + "Ask the provider itself.",
    "webhook_endpoints": _ACCOUNT,
    "webhook_event_types": _ACCOUNT,
}
"""Paths below /v1 that are not served, each with a hint."""


def refusal(path: bytes) -> Invalid | NotFound | None:
    """The refusal of a path that an official client has and the gateway does not serve; None for any other path."""
    if _AZURE.match(path) is not None:
        served = "Chat, completions, embeddings, images and audio of a deployment are, and all below /openai/v1."
        return NotFound("this path of Azure's client is not served", code="path_unknown", hint=served)
    if (other := other_provider_refusal(path)) is not None:
        return other
    root, *below = path.decode("latin-1").removeprefix("/").split("/")[:3]
    if root != "v1":
        return None
    for length in (2, 1):
        name = "/".join(below[:length])
        if (hint := NOT_SERVED.get(name)) is not None:
            return not_served(name.replace("/", "."), hint)
    return None


def other_provider_refusal(path: bytes) -> NotFound | None:
    """The refusal of a path of another provider's client; None for any other path."""
    for pattern, whose, hint in _OTHER_PROVIDERS:
        if pattern.match(path) is not None:
            if hint:
                what = f"{path.decode('latin-1')[:60]} of {whose} client is not served here"
                return NotFound(what, code="path_unknown", hint=hint)
            what = f"paths of {whose} client are not served{_OPENAI}"
            return NotFound(what, code="path_unknown", hint=f"{_AS_OPENAI}, or another client of OpenAI's API.")
    return None


def unknown_path(path: bytes, served: Iterable[str]) -> NotFound:
    """The refusal of any other path. `served`: the paths of calls, for the hint."""
    if _HEALTH.match(path) is not None:
        hint = "GET /livez says whether the gateway runs, GET /readyz whether it takes calls; neither needs a key."
        return NotFound("there is no such path", code="path_unknown", hint=hint)
    listed = tuple(served)
    hint = f"Under /v1 the gateway has models, files, batches and realtime, and POST {', '.join(listed)}."
    misplaced = misplaced_path(path, (*listed, "/v1/models", "/v1/files", "/v1/batches"))
    return misplaced or NotFound("there is no such path", code="path_unknown", hint=hint)


def misplaced_path(path: bytes, served: Iterable[str]) -> NotFound | None:
    """The refusal of a path that is one of `served` below another base URL, or with a slash at its end. The message
    says what to correct, since clients show nothing else."""
    requested = path.decode("latin-1")
    for each in served:
        if requested == f"{each}/":
            hint = f"Write {each} without the slash at its end."
            return NotFound("there is no such path: it ends with a slash", code="path_unknown", hint=hint)
        if requested != each and requested.endswith(each.removeprefix("/v1")):
            reason = _OPENAI
            if "//" in requested:
                reason = _SLASH
            elif requested.startswith("/v1/v"):
                reason = _ADDS
            elif "/messages" in each:
                reason = ": Anthropic's clients add /v1 to the base URL themselves"
            hint = f"This is {each} below another base URL."
            return NotFound(f"there is no such path{reason}", code="path_unknown", hint=hint)
    return None


def not_served(name: str, hint: str) -> Invalid:
    """The refusal of an endpoint, by the name that official clients give it."""
    return Invalid(f"{name} is not served here", code="endpoint_unsupported", hint=hint)
