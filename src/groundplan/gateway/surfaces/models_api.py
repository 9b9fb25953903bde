"""`GET /v1/models`: the model names that a key may use, in OpenAI's shape or Anthropic's."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from groundplan.core.errors import GroundplanError, Invalid, NotFound
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.identify import find_key
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.policy.client_address import check_network
from groundplan.gateway.surfaces.messages import errors as messages_errors
from groundplan.gateway.surfaces.messages.surface import VERSION
from groundplan.gateway.surfaces.stored_api import Query, check_method, last_value, query_of
from groundplan.gateway.surfaces.unsupported_paths import not_served

PATH = b"/v1/models"
_BELOW = PATH + b"/"
_UNKNOWN = "1970-01-01T00:00:00Z"
"""An unknown release date, as Anthropic writes it."""
_MODEL = {"type": "model", "created_at": _UNKNOWN}
_STAGE = {"lifecycle": "active"}
"""Field of a model in versions of Anthropic's API after `messages.VERSION`; versions are dates."""
_STAGES = ("active", "deprecated", "retired")
MAX_LISTED = 1000
_encode = msgspec.json.Encoder().encode


def serves(path: bytes) -> bool:
    return path == PATH or path.startswith(_BELOW)


def handle(gateway: Gateway, path: bytes, request: Request, response: Response) -> None:
    """Answer one request, in Anthropic's shape if it has `anthropic-version`."""
    anthropic = b"anthropic-version" in request.headers
    try:
        if request.method == b"DELETE":
            raise not_served("models.delete", "What a workload may use is declared in its blueprint.")
        check_method(request, (b"GET",))
        response.send(200, _encode(_answer(gateway, path, request, response.peer_address, anthropic=anthropic)))
    except GroundplanError as error:
        messages_errors.send_error(response, error, anthropic=anthropic)


def _answer(gateway: Gateway, path: bytes, request: Request, peer: str, *, anthropic: bool) -> dict[str, Any]:
    """The list of models, or one model. Raises as a call's identification does, and `NotFound`."""
    key = find_key(request.headers, gateway.live.policy, gateway.clock.seconds())
    catalog = gateway.live.catalog
    if key.networks:
        forwarded = request.headers.get(b"x-forwarded-for")
        check_network(key.networks, peer, forwarded, catalog.proxies if catalog else ())
    plan = catalog.plans.get(key.workload) if catalog else None
    names = sorted(plan.deployments_by_name) if plan else []
    if plan is not None and key.models:
        names = [name for name in names if admit.allowed_by_key(key, plan.deployments_by_name[name])]
    models: list[dict[str, Any]]
    if anthropic:
        model = _MODEL | _STAGE if request.headers[b"anthropic-version"] > VERSION else _MODEL
        models = [{**model, "id": name, "display_name": name} for name in names]
    else:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": key.workload} for name in names]
    wanted = unquote_to_bytes(path[len(_BELOW) :]).decode("utf-8", "replace")
    if wanted:
        found = next((model for model in models if model["id"] == wanted), None)
        if found is None:
            hint = f"Use one of: {', '.join(names)}"
            raise NotFound(f"there is no model '{wanted[:80]}'", code="model_not_found", hint=hint)
        return found
    if not anthropic:
        return {"object": "list", "data": models}
    return _page(models, query_of(request))


def _page(models: list[dict[str, Any]], query: Query) -> dict[str, Any]:
    """A page of models in Anthropic's shape; all, unless the query limits their number or lifecycle. Every model that
    may be used counts as active: lifecycles are the provider's own. Raises `Invalid`, `NotFound`."""
    stages = [*query.get("lifecycle", ()), *query.get("lifecycle[]", ())]
    if (unknown := next((stage for stage in stages if stage not in _STAGES), None)) is not None:
        hint = f"Use {', '.join(_STAGES)}; or leave lifecycle out."
        raise Invalid(f"lifecycle is {unknown[:20]!r}", code="field_unsupported", hint=hint)
    if stages and "active" not in stages:
        models = []
    text, after, before = (last_value(query, name) for name in ("limit", "after_id", "before_id"))
    if after is not None and before is not None:
        raise Invalid("after_id and before_id are both there", code="page_invalid", hint="Send one of them.")
    most = MAX_LISTED if text is None else int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not 1 <= most <= MAX_LISTED:
        raise Invalid(f"limit is from 1 to {MAX_LISTED}", code="limit_range", hint="Leave limit out.")
    ids = [model["id"] for model in models]
    if (named := after if before is None else before) is not None and named not in ids:
        raise NotFound(f"there is no model '{named[:80]}'", code="model_not_found", hint="Leave the page's id out.")
    if before is not None:
        end = ids.index(before)
        shown, more = models[max(0, end - most) : end], end > most
    else:
        start = 0 if after is None else ids.index(after) + 1
        shown, more = models[start : start + most], start + most < len(models)
    first, end_id = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"data": shown, "has_more": more, "first_id": first, "last_id": end_id}
