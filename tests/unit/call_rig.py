"""A gateway worker in the test's own event loop, with scripted upstreams and workloads as a test declares them."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec.structs import replace
from tests.closing import close
from tests.integration.gates import hold_answers
from tests.integration.gates import wait_until as wait_until
from tests.integration.gateway_stack import Reply, blueprint, deployment, parse_events, parse_reply, workload

from groundplan.blueprint.model import Budget, Hedge, Limit, Reliability
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.gateway.budgets.leases import Key, Slices
from groundplan.gateway.caching.idempotency import Holder, IdempotentAnswers
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.pipeline import Pipeline
from groundplan.gateway.http.server import Server
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.journal.recovery import EpochState
from groundplan.gateway.journal.syncing import ThreadSync
from groundplan.gateway.policy.catalog import Catalog, Plan, index
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.surfaces.messages import errors as messages_errors
from groundplan.gateway.upstream.targets import Targets
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement
from groundplan.testing import ManualClock
from groundplan.testing.journal import read_segment, replay
from groundplan.testing.scripted import Script, ScriptedModel, start

LIMIT = PICO
BOUND = 20 * 10_000_000
"""The bound of a call: 20 output tokens at 10 USD per million, in picodollars."""
HANDSHAKE = {
    b"upgrade": b"websocket", b"connection": b"Upgrade", b"sec-websocket-version": b"13",
    b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip
"""Headers that open a WebSocket."""
PATIENT = {"first_token_ms": 20_000, "idle_ms": 20_000, "connect_ms": 20_000}
"""Timeouts that a busy machine does not reach. Tests of timeouts set their own."""


@dataclass
class FixedPolicy:
    """A policy and a blueprint that do not change."""

    policy: Policy
    catalog: Catalog | None
    seconds: float = 0.0
    """Seconds since the policy was last confirmed to be the newest."""
    is_following: bool = False

    def age(self, now: float | None = None) -> float:  # noqa: ARG002 -- the protocol's signature
        return self.seconds

    def remaining(self, budget: Budget, period: str) -> int:  # noqa: ARG002 -- the protocol's signature
        return budget.limit

    def people(self, workload: str) -> frozenset[str]:  # noqa: ARG002 -- the protocol's signature
        return frozenset()

    def record_person(self, workload: str, person: str) -> None:  # noqa: ARG002 -- the protocol's signature
        return None

    def stop(self, workload: str, call: UUID) -> None:  # noqa: ARG002 -- the protocol's signature
        self.policy = dataclasses.replace(self.policy, kills=self.policy.kills | {f"workload/{workload}"})


@dataclass
class NoMoreGrants:
    """Grants that never extend a slice: each request is refused."""

    requested_budgets: list[str] = field(default_factory=list)
    connected: bool = True

    def unspent(self, name: str, period: str) -> int:  # noqa: ARG002 -- the protocol's signature
        return 0

    def was_refused_lately(self, name: str, period: str) -> bool:  # noqa: ARG002 -- the protocol's signature
        return self.connected

    async def acquire(
        self,
        token: tuple[bytes, int],  # noqa: ARG002 -- the protocol's signature
        charges: Sequence[Charge],
        declared: Any,  # noqa: ARG002
        blueprint: int = 0,  # noqa: ARG002
    ) -> Charge | None:
        self.requested_budgets.append(charges[0].budget)
        await asyncio.sleep(0)
        return charges[0]

    def remaining(self, key: Key, limit: int) -> int:  # noqa: ARG002 -- the protocol's signature
        return limit


@dataclass
class Rig:
    """One worker; `models` are its scripted upstreams by name."""

    gateway: Gateway
    port: int
    models: dict[str, ScriptedModel]
    grants: NoMoreGrants
    server: Server
    upstreams: dict[str, Server]

    def plan(self, name: str) -> Plan:
        """The plan of a workload, whose deployments a test may change."""
        catalog = self.gateway.live.catalog
        assert catalog is not None
        return catalog.plans[name]

    def play(self, name: str, **script: Any) -> None:
        """Set how one of the upstreams behaves from now on."""
        self.models[name].script = Script(**script)
        self.models[name]._attempts_seen = 0

    def change_deployment(self, name: str, **settings: Any) -> None:
        """Change settings of a deployment in all plans."""
        catalog = self.gateway.live.catalog
        assert catalog is not None
        for workload_name, plan in catalog.plans.items():
            names = {
                model: tuple(replace(d, **settings) if d.name == name else d for d in deployments)
                for model, deployments in plan.deployments_by_name.items()
            }
            catalog.plans[workload_name] = dataclasses.replace(plan, deployments_by_name=names)

    def hold(self, name: str) -> asyncio.Semaphore:
        """`hold_answers` for one of the upstreams."""
        return hold_answers(self.models[name])

    def request(self, key: str = "assistant", **more: Any) -> bytes:
        body = {"model": "auto", "messages": [{"role": "user", "content": "a b c d"}], "max_tokens": 20, **more}
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        return head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data

    async def chat(self, key: str = "assistant", **more: Any) -> Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.request(key, **more))
        try:
            return parse_reply(await asyncio.wait_for(reader.read(), 20))
        finally:
            writer.close()

    async def stream(self, **more: Any) -> Stream:
        return Stream(await self.chat(stream=True, **more))

    @property
    def slices(self) -> Slices:
        return self.gateway.slices

    async def records(self) -> list[Any]:
        """All records of the journal, which is closed first."""
        await self.gateway.journal.close()
        return read_records(self.gateway.journal.folder)

    async def settlements(self) -> list[Settlement]:
        return [record for record in await self.records() if isinstance(record, Settlement)]

    async def books(self) -> EpochState:
        """The journal replayed as a recovery would do; also checks that every attempt has one settlement and that the
        slices agree with the journal."""
        records = await self.records()
        state = replay(records)
        reserved = sorted((r.call, r.attempt) for r in records if isinstance(r, Reservation))
        settled = sorted((r.call, r.attempt) for r in records if isinstance(r, Settlement))
        assert reserved == settled and len(set(reserved)) == len(reserved), "an attempt without its one settlement"
        finished = [r.call for r in records if isinstance(r, Finish)]
        assert {call for call, _ in reserved} <= set(finished) and len(set(finished)) == len(finished)
        spent = sum(state.spent.values())
        assert self.slices.open_reservations == 0
        assert self.slices.available("all", "total") == LIMIT - spent
        return state


class Stream:
    """The stream that a client received."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.raw = reply.body
        self.events = parse_events(reply.body)
        self.chunks = [e for e in self.events if e != "[DONE]" and "choices" in e]
        self.errors = [e["error"] for e in self.events if e != "[DONE]" and "error" in e]

    @property
    def done(self) -> bool:
        return bool(self.events) and self.events[-1] == "[DONE]"

    @property
    def text(self) -> str:
        deltas = [c["delta"] for chunk in self.chunks for c in chunk["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def finish(self) -> list[str]:
        return [c["finish_reason"] for chunk in self.chunks for c in chunk["choices"] if c["finish_reason"]]

    @property
    def facts(self) -> dict[str, Any]:
        objects = [chunk["groundplan"] for chunk in self.chunks if "groundplan" in chunk]
        assert len(objects) == 1
        facts: dict[str, Any] = objects[0]
        return facts


def read_records(folder: Path) -> list[Any]:
    records: list[Any] = []
    for path in sorted(folder.glob("*.seg")):
        records += [entry.record for entry in read_segment(path)[0]]
    return records


@asynccontextmanager
async def call_rig(
    folder: Path,
    names: Sequence[str] = ("one", "two"),
    *,
    limit: int = LIMIT,
    more: dict[str, dict[str, Any]] | None = None,
    workloads: dict[str, dict[str, Any]] | None = None,
    limits: Sequence[Limit] = (),
    ports: dict[str, int] | None = None,
) -> AsyncIterator[Rig]:
    """A worker in front of these upstreams. `more`: settings of deployments by name; `workloads`: settings by name,
    each with a key of its own name; `ports`: ports of upstreams to use instead of the scripted ones."""
    loop = asyncio.get_running_loop()
    home = Home(folder)
    home.create()
    epoch = new_id()
    declared = {"assistant": {}} if workloads is None else workloads
    async with AsyncExitStack() as stack:
        started = {name: await stack.enter_async_context(upstream(name)) for name in names}
        port_of = {name: started[name][2] for name in names} | (ports or {})
        deployments = [deployment(name, port_of[name], **PATIENT | (more or {}).get(name, {})) for name in names]
        compiled_workloads = [workload(name, list(names), **settings) for name, settings in declared.items()]
        catalog = index(replace(blueprint(1, deployments, compiled_workloads), limits=list(limits)))
        keys = {
            hashlib.sha256(name.encode()).digest(): KeyEntry(str(new_id()), name, "", False, False, None)
            for name in declared
        }
        # a thread, since the kernel's interface is as fast and takes 30 ms to shut down
        journal = Journal.open(home.journal / str(epoch), epoch, loop, 1 << 20, ThreadSync(loop))
        slices, clock, grants = Slices(), ManualClock(), NoMoreGrants()
        slices.add_grant("all", "total", limit)
        live = FixedPolicy(Policy(1, keys, {}, frozenset(), frozenset()), catalog)
        answers = IdempotentAnswers(home.journal, epoch, clock.now().timestamp())
        answers.open(Holder(1, bytes(32)))
        gateway = Gateway(epoch, loop, clock, journal, slices, grants, live, Targets(home, loop), answers)
        server = Server(Pipeline(gateway).handle, messages_errors.refusal_body, loop)
        listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        models = {name: model for name, (model, _, _) in started.items()}
        servers = {name: upstream_server for name, (_, upstream_server, _) in started.items()}
        try:
            yield Rig(gateway, port, models, grants, server, servers)
        finally:
            await close(listener, server, busy=lambda: gateway.running_calls or gateway.background)
            await journal.close()
            gateway.targets.close()
            answers.close()


@asynccontextmanager
async def upstream(name: str) -> AsyncIterator[tuple[ScriptedModel, Server, int]]:
    """A scripted model in this loop, its server and port."""
    model = ScriptedModel(name)
    listener, server, port = await start(model)
    try:
        yield model, server, port
    finally:
        await close(listener, server)


def reliability(**settings: Any) -> dict[str, Any]:
    """Workload settings with this reliability."""
    hedge = settings.pop("hedge", None)
    return {"reliability": Reliability(hedge=None if hedge is None else Hedge(**hedge), **settings)}
