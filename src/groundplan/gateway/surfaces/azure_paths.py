"""Maps Azure's paths of OpenAI's API to the gateway's: `/openai/deployments/NAME/chat/completions` is
`/v1/chat/completions` of the model NAME, and whatever else is below `/openai` is below `/v1`.

At Azure the name in the path counts, and a `model` in the body is ignored. So the name is put into the body before the
body is read: keys, routing, prices and upstreams go by one name only. `api-version` is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Container
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.http.strict_json import DECODE_ERRORS, check_duplicate_names
from groundplan.gateway.offload import READ_BYTES, in_thread

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request

_DEPLOYMENT = re.compile(rb"/(?:openai|v1|openai/v1)/deployments/(.+)")
_SEGMENTS = (2, 1)
"""How many segments the paths of calls have below /v1; what is before them is the name, in which Node's client leaves
slashes."""
_OTHER_PATH = re.compile(rb"/openai(?:/v1)?/(?!v1/|deployments/|messages(?:/|$))(.+)")
REALTIME = b"/openai/v1/realtime"
"""The path of realtime conversations, which are opened by WebSocket."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def gateway_path(path: bytes, called: Container[bytes]) -> tuple[bytes, str] | None:
    """(the gateway's path for one of Azure's, the model that it names or empty); None for any other path. `called`: the
    paths of calls to models."""
    if (found := _DEPLOYMENT.fullmatch(path)) is not None:
        for count in _SEGMENTS:
            name, *rest = found[1].rsplit(b"/", count)
            below = b"/v1/" + b"/".join(rest)
            if below in called:
                return below, unquote_to_bytes(name).decode(errors="replace")
        return None
    found = _OTHER_PATH.fullmatch(path)
    return None if found is None else (b"/v1/" + found[1], "")


async def rewrite_request(request: Request, path: bytes, name: str) -> None:
    """Rewrite a request to one for `path` and, unless `name` is empty, for the model `name`."""
    query = request.target.partition(b"?")
    request.target = path + query[1] + query[2]
    if not name:
        return
    request.upload_state = name  # a form is read while it arrives
    if len(request.body) > READ_BYTES:
        request.body = await in_thread(partial(_with_model, request.body, name))
    else:
        request.body = _with_model(request.body, name)


def _with_model(body: bytes, name: str) -> bytes:
    """A body that names the model. One that cannot be read stays as it is: its surface will refuse it."""
    try:
        fields = _fields(body)
        check_duplicate_names(body, len(fields))
    except (*DECODE_ERRORS, Invalid):
        return body
    return _encode({**fields, "model": name})
