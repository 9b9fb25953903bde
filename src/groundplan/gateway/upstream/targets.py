"""Resolves a deployment to its connection pool and the head of a request to it, with its secret.

Secrets are resolved for a few seconds at a time and leave this module only in a request's own head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from groundplan.blueprint.model import Deployment, ProviderKey
from groundplan.core.endpoints import CACHE_SECONDS, lookup
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.settings import resolve_secret
from groundplan.gateway.upstream.connection import Pool, UpstreamFailure
from groundplan.gateway.upstream.key_pool import REASONS, KeyPool
from groundplan.gateway.upstream.pools import ConnectionSettings, Pools, connection_settings
from groundplan.gateway.upstream.secret_masking import mask, maskable_spellings, spellings
from groundplan.gateway.upstream.service_restart import ServiceRestart


@dataclass(frozen=True, slots=True)
class Target:
    """A resolved upstream: the parts of a request's head that are the same for each call."""

    pool: Pool
    host: bytes
    authorization_line: bytes
    fresh_until: float
    deployment: Deployment | None = None
    key_index: int = 0
    """Index of the key, if the deployment has several."""
    secrets: tuple[bytes, ...] = ()
    """Spellings of the secret that are masked in answers; none if it is too short to be told from a word."""

    def request(self, path: bytes, body: bytes, request_id: bytes, accept: bytes, extra_lines: bytes = b"") -> bytes:
        """A complete POST request; `request_id` is its x-request-id, `extra_lines` are complete header lines."""
        return (
            b"POST %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\ncontent-type: application/json\r\n"
            b"accept: %b\r\nx-request-id: %b\r\n%bcontent-length: %d\r\n\r\n%b"
        ) % (
            self.pool.prefix,
            path,
            self.host,
            self.authorization_line,
            accept,
            request_id,
            extra_lines,
            len(body),
            body,
        )

    def upload_head(self, path: bytes, content_type: bytes, request_id: bytes, extra_lines: bytes) -> bytes:
        """The head of a POST request whose body follows in chunks."""
        return (
            b"POST %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\ncontent-type: %b\r\n"
            b"accept: */*\r\nx-request-id: %b\r\n%btransfer-encoding: chunked\r\n\r\n"
        ) % (self.pool.prefix, path, self.host, self.authorization_line, content_type, request_id, extra_lines)

    def mask_refusal(self, data: bytes) -> bytes:
        """An upstream's refusal with our secret masked, which some repeat."""
        secret = self.authorization_line.strip().partition(b": ")[2].removeprefix(b"Bearer ")
        return mask(data, spellings(secret))

    def mask_answer(self, data: bytes) -> bytes:
        """An upstream's answer with our secret masked, if it is there in one piece."""
        return mask(data, self.secrets) if self.secrets else data


_MISSING_HINTS = {
    "translate": "It asks other providers: pip install 'groundplan[providers]', and start `groundplan up` anew."
}
"""Hints for local services that are not running."""


class Targets:
    """All upstreams of one worker."""

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._loop = loop
        self._pools = Pools(loop)
        self._targets: dict[str, Target] = {}
        self._named_targets: dict[str, Target] = {}
        """Targets of local services and others that are not deployments: a deployment may have the same name."""
        self._stop_reason = ""
        self._key_pools: dict[str, tuple[Sequence[ProviderKey], KeyPool]] = {}
        self.service_restart = ServiceRestart(home, loop)

    def of(self, deployment: Deployment) -> Target:
        """The target of a deployment. Raises `UpstreamFailure` (`sent` False) if it cannot be located, or its secret
        cannot be read."""
        if self._stop_reason:
            raise UpstreamFailure("refused", self._stop_reason, sent=False)
        target = self._targets.get(deployment.name)
        if target is not None and target.fresh_until > self._loop.time() and target.deployment is deployment:
            return target
        target = self._targets[deployment.name] = self._resolve(deployment.url, deployment.key, deployment)
        return target

    def key_pool(self, deployment: Deployment) -> KeyPool:
        """The key pool of a deployment with several keys."""
        known = self._key_pools.get(deployment.name)
        if known is not None and known[0] is deployment.keys:
            return known[1]
        pool = KeyPool([each.key for each in deployment.keys], None if known is None else known[1])
        self._key_pools[deployment.name] = deployment.keys, pool
        return pool

    def declare(self, deployments: Iterable[Deployment]) -> None:
        """Set the current deployments: forget the keys of others."""
        names = {each.name for each in deployments if each.keys}
        self._key_pools = {name: known for name, known in self._key_pools.items() if name in names}

    def key_problems(self) -> dict[str, str]:
        """deployment -> which of its several keys are resting, and why. The text changes only when the problems do."""
        now, found = self._loop.time(), dict[str, str]()
        for name, (keys, pool) in self._key_pools.items():
            whys = zip(keys, pool.problem_statuses(now), strict=True)
            problems = [f"the key {key.key} rests: {REASONS[status]}" for key, status in whys if status in REASONS]
            if problems:
                found[name] = "; ".join(problems)
        return found

    def with_key(self, deployment: Deployment, index: int | None) -> Target:
        """As `of`, with the key at `index`, or the best key now. Raises `UpstreamFailure`."""
        if self._stop_reason:
            raise UpstreamFailure("refused", self._stop_reason, sent=False)
        index = self._choose_key(deployment, index)
        name = f"{deployment.name}#{index}"
        target = self._targets.get(name)
        if target is None or target.fresh_until <= self._loop.time() or target.deployment is not deployment:
            found = self._resolve(deployment.url, deployment.keys[index].key, deployment)
            target = self._targets[name] = replace(found, key_index=index)
        return target

    def through_service(self, service: str, deployment: Deployment, index: int | None) -> Target:
        """The target of a local service that calls this deployment, with the key at `index`, or the best key now.
        Raises `UpstreamFailure`."""
        target = self.named_target(service, f"local:{service}", None)
        return replace(target, key_index=self._choose_key(deployment, index)) if deployment.keys else target

    def _choose_key(self, deployment: Deployment, index: int | None) -> int:
        """Index of the key to use; its use is counted. Raises `UpstreamFailure`."""
        pool, now = self.key_pool(deployment), self._loop.time()
        if index is None:
            order = pool.order(now)
            if not order:
                reason, seconds = f"every key of {deployment.name} rests", pool.rest_seconds(now)
                raise UpstreamFailure("refused", reason, sent=False, retry_after=seconds)
            index = order[0]
        pool.record_use(index, now)
        return index

    def undo_key_use(self, deployment: Deployment, index: int) -> None:
        """The attempt with this key was not sent."""
        self.key_pool(deployment).undo_use(index, self._loop.time())

    def named_target(self, name: str, url: str, key: str | None) -> Target:
        """The target at `url` (or `local:NAME`), resolved again when the known one is outdated."""
        target = self._named_targets.get(name)
        if target is None or target.fresh_until <= self._loop.time():
            target = self._resolve(url, key)
            self._named_targets[name] = target
        return target

    def forget(self, name: str) -> None:
        """Resolve it anew next time: a local service may have moved."""
        self._named_targets.pop(name, None)
        for each in self._target_names(name):
            self._targets.pop(each, None)

    def drop_idle_connections(self, name: str) -> None:
        """A kept-alive connection of this deployment was found closed when it was used: use none of the others."""
        for each in self._target_names(name):
            if (target := self._targets.get(each)) is not None:
                target.pool.drop_idle()

    def _target_names(self, deployment: str) -> list[str]:
        """The names of its targets: its own, and one for each of its keys."""
        keys = self._key_pools[deployment][1].size if deployment in self._key_pools else 0
        return [deployment, *(f"{deployment}#{index}" for index in range(keys))]

    def _resolve(self, url: str, key: str | None, deployment: Deployment | None = None) -> Target:
        secret = ""
        try:
            if url.startswith("local:"):
                endpoint = lookup(self._home, url[6:])
                if endpoint is None:
                    message, hint = f"the local service {url[6:]} is not running", _MISSING_HINTS.get(url[6:], "")
                    raise UpstreamFailure("refused", message, sent=False, hint=hint)
                url, secret = endpoint.url, endpoint.token
            elif key is not None:
                secret = resolve_secret(key)
            pool = self._pools.of(
                ConnectionSettings(url) if deployment is None else connection_settings(deployment, url)
            )
        except Invalid as error:
            raise UpstreamFailure("refused", error.message, sent=False, hint=error.hint) from error
        if not secret.isascii() or any(c in secret for c in "\r\n\0"):
            hint = f"Write the key alone where {key} is, in one line of ASCII."
            raise UpstreamFailure("refused", "the secret is not fit for a header", sent=False, hint=hint)
        name = b"authorization: Bearer" if deployment is None or deployment.api != "anthropic" else b"x-api-key:"
        line = b"%b %b\r\n" % (name, secret.encode("ascii")) if secret else b""
        until = self._loop.time() + CACHE_SECONDS
        return Target(pool, pool.host_header, line, until, deployment, secrets=maskable_spellings(secret))

    @property
    def is_stopped(self) -> bool:
        """Whether all deployments were stopped."""
        return bool(self._stop_reason)

    def stop(self, reason: str) -> None:
        """The worker ends: interrupt all running answers, and refuse further attempts."""
        self._stop_reason = reason
        self._pools.interrupt(reason)

    def cancel_unsent(self, reason: str) -> None:
        """Do not send the requests whose reservations could not be written."""
        self._pools.cancel_unsent(reason)

    def close(self) -> None:
        self._pools.close()
