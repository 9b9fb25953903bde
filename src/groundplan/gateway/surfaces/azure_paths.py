"""Azure's paths of OpenAI's API, as paths here: `/openai/deployments/NAME/chat/completions` is `/v1/chat/completions`
of the model NAME, and whatever else is below `/openai` is below `/v1`.

At Azure the name in the path counts, and a `model` in the body is not looked at. So the name is put into the body
before anything is read of it: keys, routing, prices and upstreams go by one name only. `api-version` means nothing
here.
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
"""That the paths of calls have below /v1; what is before them is the name, which Node's client sends with its
slashes."""
_BELOW = re.compile(rb"/openai(?:/v1)?/(?!v1/|deployments/|messages(?:/|$))(.+)")
REALTIME = b"/openai/v1/realtime"
"""Of conversations, which are asked for by WebSocket."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def path_here(path: bytes, called: Container[bytes]) -> tuple[bytes, str] | None:
    """What a path of Azure's is here, and the model that it names, if it does; None for any other path. `called`: the
    paths with which calls are made, of which models are asked."""
    if (found := _DEPLOYMENT.fullmatch(path)) is not None:
        for count in _SEGMENTS:
            name, *rest = found[1].rsplit(b"/", count)
            below = b"/v1/" + b"/".join(rest)
            if below in called:
                return below, unquote_to_bytes(name).decode(errors="replace")
        return None
    found = _BELOW.fullmatch(path)
    return None if found is None else (b"/v1/" + found[1], "")


async def reword(request: Request, path: bytes, name: str) -> None:
    """Make of a request one for `path` here and, unless that is empty, the model `name`."""
    query = request.target.partition(b"?")
    request.target = path + query[1] + query[2]
    if not name:
        return
    request.upload_state = name  # a form is read while it arrives
    if len(request.body) > READ_BYTES:
        request.body = await in_thread(partial(_naming, request.body, name))
    else:
        request.body = _naming(request.body, name)


def _naming(body: bytes, name: str) -> bytes:
    """A body that names the model. One that cannot be read stays as it is: whoever reads it next says why."""
    try:
        fields = _fields(body)
        check_duplicate_names(body, len(fields))
    except (*DECODE_ERRORS, Invalid):
        return body
    return _encode({**fields, "model": name})
