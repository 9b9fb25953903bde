"""`/mcp`: tools, resources and prompts of declared MCP servers, and the search in a workload's sources, by API key.

Stateless: each POST is one message with one JSON answer. Every use of a tool passes the same identification, kill
switches, company rules, limits and guardrails as a model call, and is recorded as a call in the ledger and the audit
log. A dangerous use waits for a person's approval. The client of the servers is in `servers`, the guardrails on what
callers send and servers answer in `content_checks`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from groundplan.blueprint.model import ToolServer
from groundplan.core.errors import Denied, GroundplanError, Invalid, NotFound, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.call import admit, limits, settle
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.facts_api import admit_caller, check_caller, record_passages
from groundplan.gateway.http import errors
from groundplan.gateway.http.methods import WrongMethod
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.mcp import wire
from groundplan.gateway.mcp.approvals import take_approval
from groundplan.gateway.mcp.content_checks import check_arguments, checked_entry, checked_error, checked_tool_result
from groundplan.gateway.mcp.resources import (
    GETS,
    LISTS,
    Kind,
    alternative_uris,
    entry_for_callers,
    is_offered,
    requested_name,
)
from groundplan.gateway.mcp.servers import ServerError, Servers, counting_answers
from groundplan.gateway.mcp.use import McpUse, session_owner
from groundplan.gateway.policy.gate import ToolUser
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.upstream.pressure import RANKS
from groundplan.governance.policy.calls import Tool
from groundplan.governance.policy.cedar import policy_denial
from groundplan.knowledge.retrieval.wire import NOT_GIVEN
from groundplan.ledger.model import Reservation

LIST_SECONDS = 10.0
"""How long a server may take to list what it has: the lists of all other servers wait for it, and so do clients."""
_log = logging.getLogger(__name__)
Search = Callable[[bytes, str, Any], Awaitable[tuple[int, bytes]]]


class _Tools(Interface):
    """The interface under which uses are recorded in the ledger."""

    name = "mcp"
    deployment_kind = ""
    is_billed = False


TOOLS = _Tools()


class McpApi:
    """The endpoint /mcp. `search`: the search in a workload's sources, as the facts API serves it."""

    def __init__(self, gateway: Gateway, home: Home, search: Search) -> None:
        self._gateway = gateway
        self._home = home
        self._search = search
        self._servers = Servers(gateway)
        self._unlisted_servers: set[str] = set()
        """Servers whose tools are missing from the last list, which was logged once."""

    async def close(self) -> None:
        await self._servers.close()

    async def handle(self, request: Request, response: Response) -> None:
        """Answer one request. Never raises: every error is sent to the client."""
        try:
            await self._handle(request, response)
            return
        except GroundplanError as caught:
            error = caught
        except Exception:  # noqa: BLE001 -- the boundary of one request: the worker and its calls go on
            error = errors.log_internal_error(_log, "/mcp", response)
        if not response.started:
            response.send(*errors.error_response(error))
        del error  # it references this frame: together they would stay until the next garbage collection

    async def _handle(self, request: Request, response: Response) -> None:
        if request.method != b"POST":
            raise WrongMethod(b"POST", hint="The gateway opens no stream of its own: POST each message.")
        _check_origin(request)
        exchange = Exchange(new_id_bytes(), request, response, TOOLS)
        exchange.key, exchange.person, exchange.plan = await admit_caller(self._gateway, request, response.peer_address)
        exchange.workload, exchange.catalog = exchange.plan.workload, self._gateway.live.catalog
        exchange.policy = self._gateway.live.policy
        admit.check_workload(exchange.plan, self._gateway.clock.seconds())
        message = wire.parse_message(request.body)
        if message.id is None:
            response.send(202, b"")
            return
        workload = exchange.workload
        with counting_answers(self._gateway.answer_memory, RANKS[workload.reliability.priority], workload.name):
            try:
                body = await self._answer(exchange, message)
            except ServerError as error:
                code = int(error.code) if isinstance(error.code, int) else -32603
                body = wire.error_response(message.id, code, checked_error(exchange, str(error)))
            await response.send_large(200, body)

    async def _answer(self, exchange: Exchange, message: wire.Message) -> bytes:
        if message.method == "initialize":
            return wire.result(message.id, wire.initialize_result(message.params.get("protocolVersion")))
        if message.method == "ping":
            return wire.result(message.id, {})
        if message.method == "tools/list":
            return wire.result(message.id, {"tools": await self._list_tools(exchange)})
        if message.method == "tools/call":
            return wire.result(message.id, await self._call_tool(exchange, message.params))
        if (kind := LISTS.get(message.method)) is not None:
            return wire.result(message.id, {kind.key: await self._list_entries(exchange, kind)})
        if (kind := GETS.get(message.method)) is not None:
            return await self._get_entry(exchange, kind, message)
        return wire.error_response(message.id, -32601, f"the gateway has no {message.method[:60]}")

    # lists ----------------------------------------------------------------------------------------------------

    def _servers_of(self, exchange: Exchange) -> list[ToolServer]:
        catalog, workload = exchange.catalog, exchange.workload
        if catalog is None or workload is None:
            return []
        return [server for server in catalog.blueprint.tools if workload.name in server.workloads]

    def _server_of(self, exchange: Exchange, name: str) -> ToolServer | None:
        return next((each for each in self._servers_of(exchange) if each.name == name), None)

    async def _list_tools(self, exchange: Exchange) -> list[dict[str, Any]]:
        """The tools that this caller may use; a server that does not answer has none now."""
        workload = exchange.workload
        if workload is None:
            raise AssertionError("not identified")
        servers = self._servers_of(exchange)
        found = await asyncio.gather(*(self._tools_of(server, exchange) for server in servers))
        search = (
            workload.grounding is not None and self._refusal(McpUse(exchange, None, wire.SEARCH_TOOL, {}, "")) is None
        )
        listed = [wire.search_tool(workload.name)] if search else []
        for server, tools in zip(servers, found, strict=True):
            for tool in tools:
                name = str(tool["name"])
                use = McpUse(exchange, server, name, {}, "")
                if wire.is_offered(server, name) and wire.is_readable(tool) and self._refusal(use) is None:
                    listed.append(wire.tool_for_callers(server.name, tool))
        return listed

    async def _tools_of(self, server: ToolServer, exchange: Exchange) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(LIST_SECONDS):
                found = await self._servers.list_entries(server, "tools/list", "tools", session_owner(exchange))
        except (Unavailable, ServerError, TimeoutError) as error:
            if server.name not in self._unlisted_servers:  # the log must not grow with requests
                self._unlisted_servers.add(server.name)
                _log.warning("tools of %s are left out: %s", server.name, str(error) or "it did not answer in time")
            return []
        self._unlisted_servers.discard(server.name)
        return found

    async def _list_entries(self, exchange: Exchange, kind: Kind) -> list[dict[str, Any]]:
        """The resources, resource templates or prompts that this caller may use."""
        listed: list[dict[str, Any]] = []
        servers = self._servers_of(exchange)
        every = await asyncio.gather(*(self._entries_of(server, kind, exchange) for server in servers))
        for server, found in zip(servers, every, strict=True):
            for entry in found:
                name = str(entry[kind.field])
                use = _resource_use(exchange, server, kind, name)
                if is_offered(server, kind, name) and self._refusal(use) is None:
                    listed.append(entry_for_callers(server.name, kind, entry))
        return listed

    async def _entries_of(self, server: ToolServer, kind: Kind, exchange: Exchange) -> list[dict[str, Any]]:
        """A server's entries of a kind; none where it does not know the kind, or does not answer."""
        try:
            async with asyncio.timeout(LIST_SECONDS):
                return await self._servers.list_entries(
                    server, kind.lists, kind.key, session_owner(exchange), kind.field
                )
        except (Unavailable, ServerError, TimeoutError):
            return []

    # one use ----------------------------------------------------------------------------------------------------------

    async def _call_tool(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        """Use a tool: its result, or one that says why it was not used."""
        use = self._read_tool_use(exchange, params)
        try:
            return await self._record_outcome(use, self._use_tool(use))
        except GroundplanError as error:
            return wire.refusal_result(error, call_id=str(exchange.call))

    async def _get_entry(self, exchange: Exchange, kind: Kind, message: wire.Message) -> bytes:
        """Read a resource or a prompt: the answer, or an error that says why not."""
        server_name, name = requested_name(kind, message.params)
        server = self._server_of(exchange, server_name)
        arguments = {key: value for key, value in message.params.items() if key == "arguments"}
        use = _resource_use(exchange, server, kind, name, arguments, str(_retry_in_meta(message.params) or ""))
        try:
            return wire.result(message.id, await self._record_outcome(use, self._get_content(use, kind, name)))
        except GroundplanError as error:
            data = {"code": error.code, "hint": error.hint, "call_id": str(exchange.call), **error.details}
            return wire.error_response(
                message.id, -32002 if isinstance(error, NotFound) else -32603, error.message, data
            )

    async def _get_content(self, use: McpUse, kind: Kind, name: str) -> dict[str, Any]:
        server = use.server
        if server is None or not is_offered(server, kind, name):
            hint = f"{kind.lists} shows those that this key may use."
            raise NotFound(f"there is no {kind.what} {name[:100]}", code=f"{kind.what}_unknown", hint=hint)
        await self._check_use(use)
        field = "uri" if kind.what == "resource" else "name"
        found = await self._ask_server(use, server, kind.gets, {field: name, **use.arguments})
        return checked_entry(use.exchange, kind, server.name, found)

    async def _ask_server(
        self, use: McpUse, server: ToolServer, method: str, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        """The server's result of a checked use, once that is approved, where it is dangerous, and journalled."""
        if use.is_dangerous:
            await take_approval(self._gateway, self._home, use)
            self._check_again(use)
        self._journal_use(use)
        check = partial(self._check_unsent, use, self._gateway.live.policy)
        return await self._servers.request(server, method, parameters, session_owner(use.exchange), check)

    async def _check_use(self, use: McpUse) -> None:
        """Check kill switches, company rules, limits and the arguments. Raises `Denied`, `Exhausted`, `Unavailable`."""
        if not self._gateway.journal.healthy:
            raise settle.journal_unavailable()  # a tool may do what cannot be undone
        policy = self._gateway.live.policy
        if (error := self._refusal(use)) is not None:
            raise error
        catalog = use.exchange.catalog
        if catalog is not None and catalog.limits is not None:
            await limits.admit_cached(self._gateway, use.exchange, catalog.limits)
        await check_arguments(self._gateway, use)
        if self._gateway.live.policy is not policy:
            self._check_again(use)

    def _check_again(self, use: McpUse) -> None:
        """Check again after a wait, since the use may have been stopped. Raises `Denied`, `Unauthenticated`."""
        exchange = use.exchange
        check_caller(self._gateway, exchange.request, exchange.response.peer_address)
        if (error := self._refusal(use)) is not None:
            raise error

    def _check_unsent(self, use: McpUse, policy: Policy) -> None:
        """As `_check_again` where live policy is not `policy` any more, for a use that is journalled and not sent."""
        if self._gateway.live.policy is policy:
            return
        try:
            self._check_again(use)
        except GroundplanError:
            use.was_sent = False
            raise

    def _journal_use(self, use: McpUse) -> None:
        """Journal the use before the server is asked, since the server may act: so it is in the ledger even if this
        worker dies. Raises `Unavailable`."""
        exchange, at = use.exchange, int(self._gateway.clock.seconds() * 1000)
        key, workload, catalog = exchange.key, exchange.workload, exchange.catalog
        if key is None or workload is None or catalog is None:
            raise AssertionError("not identified")
        self._gateway.journal.reserve(
            Reservation(
                exchange.id_bytes, 0, at, workload.name, exchange.person, key.id, exchange.endpoint, "", "", use.step,
                catalog.number, 0, [], catalog.blueprint.demo,
            )
        )  # fmt: skip
        use.was_sent = True

    async def _record_outcome(self, use: McpUse, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        """Await the result of a use, and record the use as a call in the journal whatever happens. Raises `Unavailable`
        where that is impossible."""
        gateway, exchange = self._gateway, use.exchange
        gateway.running_calls += 1
        begun = time.perf_counter_ns()
        try:
            result = await work
            await self._finish_use(use, begun, "tool_error" if result.get("isError") is True else "")
        except ServerError:
            await self._finish_use(use, begun, "tool_error")
            raise
        except GroundplanError as error:
            self._note_duration(use, begun)
            outcome = "refused" if not use.was_sent or isinstance(error, Denied | Invalid) else "failed"
            settle.finish_with_error(gateway, exchange, error, outcome)
            raise
        except BaseException as error:
            self._note_duration(use, begun)
            if isinstance(error, asyncio.CancelledError):
                settle.finish(gateway, exchange, "cancelled", settle.CLIENT_GONE, "client_gone")
            else:
                settle.finish(gateway, exchange, "failed", 503, "internal_error")
            raise
        finally:
            gateway.running_calls -= 1
        return result

    async def _finish_use(self, use: McpUse, begun: int, code: str) -> None:
        """Record the end of a use; returns once that is durable. Raises `Unavailable`."""
        self._note_duration(use, begun)
        sequence = settle.finish_or_raise(self._gateway, use.exchange, "failed" if code else "ok", 200, code)
        if (pending := self._gateway.journal.durable(sequence)) is not None:
            await pending

    def _note_duration(self, use: McpUse, begun: int) -> None:
        """Note the duration of a use, and count it as a request in limits if a server was asked."""
        exchange = use.exchange
        exchange.steps.append((use.step, (time.perf_counter_ns() - begun) // 1000))
        if use.was_sent and exchange.limit_use is not None:
            limits.end_call(self._gateway, exchange.limit_use, sent=True)

    def _read_tool_use(self, exchange: Exchange, params: dict[str, Any]) -> McpUse:
        """The use that `tools/call` requests. Raises `Invalid` (`mcp_message`)."""
        name, arguments = params.get("name"), params.get("arguments") or {}
        if not isinstance(name, str) or not isinstance(arguments, dict) or len(name) > wire.MAX_NAME:
            raise Invalid("tools/call names a tool and its arguments", code="mcp_message", hint="See the MCP.")
        retry = arguments.pop(wire.RETRY_ARGUMENT, None) or _retry_in_meta(params) or ""
        server_name, tool = wire.split_name(name)
        server = self._server_of(exchange, server_name)
        if server is None and server_name:
            tool = name
        return McpUse(exchange, server, tool, arguments, str(retry))

    async def _use_tool(self, use: McpUse) -> dict[str, Any]:
        exchange, server = use.exchange, use.server
        workload = exchange.workload
        is_search = (
            server is None and use.tool == wire.SEARCH_TOOL and workload is not None and workload.grounding is not None
        )
        if not is_search and (server is None or not wire.is_offered(server, use.tool)):
            hint = "tools/list shows those that this key may use."
            raise NotFound(f"there is no tool {use.tool[:100]}", code="tool_unknown", hint=hint)
        await self._check_use(use)
        if server is None:
            use.was_sent = True
            return await self._search_sources(use)
        parameters = {"name": use.tool, "arguments": use.arguments}
        return checked_tool_result(use, await self._ask_server(use, server, "tools/call", parameters))

    def _refusal(self, use: McpUse) -> Denied | None:
        """The refusal of a use by kill switches or company rules; None: it is allowed."""
        exchange, server, policy = use.exchange, use.server, self._gateway.live.policy
        scopes = {f"tool/{name}" for name in use.names}
        if server is not None:
            scopes |= {f"tool/{server.name}/{name}" for name in use.names} | {f"tool/{server.name}"}
        if not policy.kills.isdisjoint(scopes):
            return Denied(f"the tool {use.name} is stopped", code="killed", hint="Somebody stopped it.")
        catalog, key, workload = exchange.catalog, exchange.key, exchange.workload
        if catalog is None or catalog.gate is None or key is None or workload is None:
            return None
        user, now = ToolUser(workload.name, key, exchange.person), self._gateway.clock.seconds()
        for name in use.names:
            tool = Tool(name, server.name if server else "", use.is_dangerous)
            verdict = catalog.gate.decide_tool(policy, user, tool, now)
            if not verdict.allowed:
                return policy_denial(verdict, f"this use of {use.name} by {workload.name}")
        return None

    async def _search_sources(self, use: McpUse) -> dict[str, Any]:
        exchange = use.exchange
        try:
            _, body = await self._search(msgspec.json.encode(use.arguments), exchange.person, exchange.plan)
        except msgspec.DecodeError as error:
            raise Invalid(f"the search is not right: {error}", code="mcp_arguments", hint="See inputSchema.") from error
        record_passages(exchange, body)
        found = msgspec.json.decode(body)
        texts = [_passage_text(number, each) for number, each in enumerate(found.get("passages", ()), 1)]
        texts += [
            f"In conflict: {each['path']} says '{each['says']}', {each['other_path']} says '{each['other_says']}'"
            for each in found.get("conflicts", ())
        ]
        texts += [_newer_text(each) for each in found.get("newer", ())]
        content = [{"type": "text", "text": text} for text in texts] or [{"type": "text", "text": "Nothing was found."}]
        return checked_tool_result(use, {"content": content, "structuredContent": found, "isError": False})


def _resource_use(
    exchange: Exchange, server: ToolServer | None, kind: Kind, name: str, arguments: dict[str, Any] | None = None,
    retry: str = "",
) -> McpUse:  # fmt: skip
    """The use of a resource or a prompt."""
    alternatives = tuple(f"resource:{each}" for each in alternative_uris(name)) if kind.what == "resource" else ()
    return McpUse(exchange, server, f"{kind.what}:{name}", arguments or {}, retry, alternative_names=alternatives)


def _retry_in_meta(params: dict[str, Any]) -> Any:
    """What `_meta` of a message says that it repeats; None where it says nothing."""
    meta = params.get("_meta")
    return meta.get(wire.RETRY_META) if isinstance(meta, dict) else None


def _check_origin(request: Request) -> None:
    """Raise `Denied` for requests of browsers: a page of another site could use a key that way."""
    if b"origin" in request.headers:
        hint = "Speak to /mcp from a server or an agent, not from a web page."
        raise Denied("browsers do not speak to /mcp", code="mcp_origin", hint=hint)


def _passage_text(number: int, found: dict[str, Any]) -> str:
    """A passage as text of a tool result, with the head row above rows of a table."""
    paths = dict.fromkeys([found.get("path", ""), *(each["path"] for each in found.get("also", ()))])
    heading = f"[{number}] {found.get('title', '')} ({', also in '.join(paths)})"
    return "\n".join(filter(None, (heading, found.get("head"), found.get("text"))))


def _newer_text(found: dict[str, Any]) -> str:
    reason = NOT_GIVEN.get(found.get("reason", ""))
    return f"{found['path']} has a newer version: {found['newer_path']}" + (f", which {reason}" if reason else "")
