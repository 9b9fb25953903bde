"""Where a deployment is right now: its connection pool and the head of a request to it, with its secret.

Secrets are resolved for a few seconds at a time and never leave this module but in the request's own head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from groundplan.blueprint.model import Deployment, ProviderKey
from groundplan.core.endpoints import KNOWN_SECONDS, lookup
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.settings import resolve_secret
from groundplan.gateway.upstream.connection import Pool, UpstreamFailure
from groundplan.gateway.upstream.key_pool import WHYS, KeyPool
from groundplan.gateway.upstream.pools import Pools, Wire, wire_of
from groundplan.gateway.upstream.secret_masking import sought, spelled, without
from groundplan.gateway.upstream.service_restart import ServiceRestart


@dataclass(frozen=True, slots=True)
class Target:
    """`head(path)` parts: everything of a request's head that is the same for each call."""

    pool: Pool
    host: bytes
    authorization: bytes
    until: float
    deployment: Deployment | None = None
    index: int = 0
    """Of its key, where the deployment has several."""
    secrets: tuple[bytes, ...] = ()
    """Its secret as an answer may have it, where it is long enough to be told from a word."""

    def request(self, path: bytes, body: bytes, name: bytes, accept: bytes, lines: bytes = b"") -> bytes:
        """A whole POST request; `name` is its x-request-id, `lines` are further complete header lines."""
        return (
            b"POST %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\ncontent-type: application/json\r\n"
            b"accept: %b\r\nx-request-id: %b\r\n%bcontent-length: %d\r\n\r\n%b"
        ) % (self.pool.prefix, path, self.host, self.authorization, accept, name, lines, len(body), body)

    def upload(self, path: bytes, kind: bytes, name: bytes, lines: bytes = b"") -> bytes:
        """The head of a POST request whose body follows in chunks; `kind` is its Content-Type."""
        return (
            b"POST %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\ncontent-type: %b\r\n"
            b"accept: */*\r\nx-request-id: %b\r\n%btransfer-encoding: chunked\r\n\r\n"
        ) % (self.pool.prefix, path, self.host, self.authorization, kind, name, lines)

    def hide(self, data: bytes) -> bytes:
        """An upstream's refusal without our secret, which some repeat."""
        secret = self.authorization.strip().partition(b": ")[2].removeprefix(b"Bearer ")
        return without(data, spelled(secret))

    def clean(self, data: bytes) -> bytes:
        """An upstream's answer without our secret, where that stands in it in one piece."""
        return without(data, self.secrets) if self.secrets else data


_MISSING = {
    "translate": "It asks other providers: pip install 'groundplan[providers]', and start `groundplan up` anew."
}
"""What to do where a local service is not there."""


class Targets:
    """All upstreams of one worker."""

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._loop = loop
        self._pools = Pools(loop)
        self._targets: dict[str, Target] = {}
        self._named: dict[str, Target] = {}
        """Of local services and others that are no deployments: one of those may have the same name."""
        self._stopped = ""
        self._keys: dict[str, tuple[Sequence[ProviderKey], KeyPool]] = {}
        self.returning = ServiceRestart(home, loop)

    def of(self, deployment: Deployment) -> Target:
        """The target of a deployment. Raises `UpstreamFailure` (`sent` False) when it is nowhere, or has no secret."""
        if self._stopped:
            raise UpstreamFailure("refused", self._stopped, sent=False)
        target = self._targets.get(deployment.name)
        if target is not None and target.until > self._loop.time() and target.deployment is deployment:
            return target
        target = self._targets[deployment.name] = self._find(deployment.url, deployment.key, deployment)
        return target

    def keys(self, deployment: Deployment) -> KeyPool:
        """The pool of a deployment with several keys."""
        known = self._keys.get(deployment.name)
        if known is not None and known[0] is deployment.keys:
            return known[1]
        pool = KeyPool([each.key for each in deployment.keys], None if known is None else known[1])
        self._keys[deployment.name] = deployment.keys, pool
        return pool

    def declare(self, deployments: Iterable[Deployment]) -> None:
        """What there is from now on: nothing is told of keys of others."""
        names = {each.name for each in deployments if each.keys}
        self._keys = {name: known for name, known in self._keys.items() if name in names}

    def key_troubles(self) -> dict[str, str]:
        """What is wrong with keys of deployments that have several, in words that stay the same while it is."""
        now, found = self._loop.time(), dict[str, str]()
        for name, (keys, pool) in self._keys.items():
            whys = zip(keys, pool.whys(now), strict=True)
            told = [f"the key {key.key} rests: {WHYS[why]}" for key, why in whys if why in WHYS]
            if told:
                found[name] = "; ".join(told)
        return found

    def with_key(self, deployment: Deployment, index: int | None) -> Target:
        """As `of`, with a certain one of its keys, or the one to use now. Raises `UpstreamFailure`."""
        if self._stopped:
            raise UpstreamFailure("refused", self._stopped, sent=False)
        index = self._key(deployment, index)
        name = f"{deployment.name}#{index}"
        target = self._targets.get(name)
        if target is None or target.until <= self._loop.time() or target.deployment is not deployment:
            found = self._find(deployment.url, deployment.keys[index].key, deployment)
            target = self._targets[name] = replace(found, index=index)
        return target

    def through(self, service: str, deployment: Deployment, index: int | None) -> Target:
        """A local service that asks this deployment, with a certain one of its keys, or the one to use now. Raises
        `UpstreamFailure`."""
        target = self.named(service, f"local:{service}", None)
        return replace(target, index=self._key(deployment, index)) if deployment.keys else target

    def _key(self, deployment: Deployment, index: int | None) -> int:
        """Which of its keys is used, counted. Raises `UpstreamFailure`."""
        pool, now = self.keys(deployment), self._loop.time()
        if index is None:
            order = pool.order(now)
            if not order:
                raise UpstreamFailure("refused", f"every key of {deployment.name} rests", sent=False)
            index = order[0]
        pool.used(index, now)
        return index

    def unsent(self, deployment: Deployment, index: int) -> None:
        """Nothing was sent with the key that was chosen."""
        self.keys(deployment).unsent(index, self._loop.time())

    def named(self, name: str, url: str, key: str | None) -> Target:
        """The target at `url` (or `local:NAME`), found anew when what is known is not fresh."""
        target = self._named.get(name)
        if target is None or target.until <= self._loop.time():
            target = self._find(url, key)
            self._named[name] = target
        return target

    def forget(self, name: str) -> None:
        """Look again next time: a local service may have moved."""
        self._named.pop(name, None)
        for each in self._names(name):
            self._targets.pop(each, None)

    def stale(self, name: str) -> None:
        """A kept-alive connection of this deployment was closed as it was used: use none of the others."""
        for each in self._names(name):
            if (target := self._targets.get(each)) is not None:
                target.pool.drop_idle()

    def _names(self, deployment: str) -> list[str]:
        """Under which its targets are known: its own, and those of its several keys."""
        keys = self._keys[deployment][1].size if deployment in self._keys else 0
        return [deployment, *(f"{deployment}#{index}" for index in range(keys))]

    def _find(self, url: str, key: str | None, deployment: Deployment | None = None) -> Target:
        secret = ""
        try:
            if url.startswith("local:"):
                endpoint = lookup(self._home, url[6:])
                if endpoint is None:
                    why, hint = f"the local service {url[6:]} is not running", _MISSING.get(url[6:], "")
                    raise UpstreamFailure("refused", why, sent=False, hint=hint)
                url, secret = endpoint.url, endpoint.token
            elif key is not None:
                secret = resolve_secret(key)
            pool = self._pools.of(Wire(url) if deployment is None else wire_of(deployment, url))
        except Invalid as error:
            raise UpstreamFailure("refused", error.message, sent=False, hint=error.hint) from error
        if not secret.isascii() or any(c in secret for c in "\r\n\0"):
            hint = f"Write the key alone where {key} is, in one line of ASCII."
            raise UpstreamFailure("refused", "the secret is not fit for a header", sent=False, hint=hint)
        name = b"authorization: Bearer" if deployment is None or deployment.api != "anthropic" else b"x-api-key:"
        line = b"%b %b\r\n" % (name, secret.encode("ascii")) if secret else b""
        until = self._loop.time() + KNOWN_SECONDS
        return Target(pool, pool.host_header, line, until, deployment, secrets=sought(secret))

    @property
    def stopped(self) -> bool:
        """Whether no deployment is reached any more."""
        return bool(self._stopped)

    def stop(self, why: str) -> None:
        """The end of this worker: answers that are waited for end here, and no deployment is reached any more."""
        self._stopped = why
        self._pools.break_off(why)

    def withhold(self, why: str) -> None:
        """Requests whose reservations could not be written are not sent."""
        self._pools.withhold(why)

    def close(self) -> None:
        self._pools.close()
