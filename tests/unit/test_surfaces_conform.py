"""Every route that the gateway serves has the types of an official client that its answers are held against.

That each answer is held against them is test_conformance's; here is that no route is missing there.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

from tests.integration.held_answers import ROUTES

from groundplan.gateway.batches import batches_api, messages_api
from groundplan.gateway.call import facts_api, pipeline
from groundplan.gateway.mcp import endpoint as mcp_endpoint
from groundplan.gateway.surfaces import models_api
from groundplan.gateway.surfaces.chat import stored_api as chat_api
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.responses import stored_api as responses_api

UNTYPED = {
    "POST /v1/audio/speech", "DELETE /v1/responses/ID", "GET /v1/chat/completions/ID/messages",
}  # fmt: skip
"""Sound has no type; OpenAI's client reads nothing of a deletion; of what was asked OpenAI's type knows only what an
assistant says."""
OWN = {"/api/", "/metrics", "/livez", "/readyz", "/mcp"}
"""Of our own making, Prometheus' or MCP's: no official client of a provider asks for them."""


def paths() -> set[str]:
    """Of the routes, without what an id is put in for."""
    return {route.split(" ")[1].partition("/ID")[0] for route in ROUTES}


def test_every_interface_is_held() -> None:
    served = {path.decode() for path in pipeline._INTERFACES}
    assert {f"POST {path}" for path in served} <= ROUTES.keys()


def test_every_other_route_is_held_or_our_own() -> None:
    others = {*batches_api._PATHS, models_api.PATH, responses_api.PREFIX.rstrip(b"/"), pipeline.REALTIME_PATH}
    others.add(chat_api.PREFIX.rstrip(b"/"))
    assert {path.decode() for path in others} <= paths()
    assert messages_api.PATH.decode() in paths()
    below = responses_api._PATH.pattern.partition("?:/(")[2].partition(")")[0].split("|")
    assert {f"/v1/responses/ID/{name}" for name in below} <= {route.split(" ")[1] for route in ROUTES}


def test_what_the_pipeline_asks_for_is_known() -> None:
    """A path that is served by another way than these has to come here first."""
    ways = (pipeline.Pipeline.handle, pipeline.Pipeline._handle_other_api, pipeline.Pipeline._handle_remaining)
    text = textwrap.dedent("".join(inspect.getsource(way) for way in ways))
    names = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Constant, ast.Name, ast.Attribute))]
    literal = {
        node.value.decode() for node in names if isinstance(node, ast.Constant) and isinstance(node.value, bytes)
    }
    assert {value for value in literal if value.startswith("/")} == OWN - {"/mcp"}
    assert pipeline.MCP_PATH == b"/mcp"
    parts = {ast.unparse(node) for node in names if isinstance(node, (ast.Name, ast.Attribute))}
    assert {part for part in parts if part.isupper() or part.endswith((".serves", ".PREFIX", ".PATH"))} == {
        "_INTERFACES", "_POST_PATHS", "MCP_PATH", "REALTIME_PATH", "chat_api.PREFIX", "models_api.serves",
        "responses_api.PREFIX",
        "self._batches.serves",
    }  # fmt: skip


def test_every_route_has_a_type_but_those_that_are_named() -> None:
    assert {route for route, held in ROUTES.items() if held.forms == {"error"}} == UNTYPED


def test_surfaces_set_no_flag_that_the_contract_does_not_have() -> None:
    """A misspelt flag would leave its default in force without a word."""
    own = {"answer_template", "counts_tokens", "file_hint", "serves_natively", "streams"}
    kinds, seen = [Interface], set[type]()
    while kinds:
        kind = kinds.pop()
        seen.add(kind)
        kinds += kind.__subclasses__()
        flags = {name for name, value in vars(kind).items() if name[0] != "_" and isinstance(value, (bool, int, str))}
        assert flags <= {*vars(Interface), *Interface.__annotations__, *own}, kind
    assert {facts_api._Searches, mcp_endpoint._Tools} <= seen and len(seen) > 15
