"""The model versions that upstreams report in their answers; a version is written to PostgreSQL only when it is new.

Of each deployment one answer in `INTERVAL_SECONDS` is read for it. Of a deployment that reports another version each
time, as a server does that makes up a fingerprint for each answer, `MAX_VERSIONS` a day are recorded. What a change
means is governance's.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.gateway.database import insert
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.relay_wrapper import RelayWrapper
from groundplan.gateway.write_behind import WriteBehindQueue

INTERVAL_SECONDS = 1.0
"""Between two answers of a deployment that are read, in one worker."""
MAX_EVENTS = 3
"""Events of a stream that are read."""
MAX_CHARS = 200
MAX_VERSIONS = 100
"""Versions of one deployment that are recorded in `DAY_SECONDS`."""
DAY_SECONDS = 86_400.0
_MAX_WAITING = 10_000
_ADD = """INSERT INTO model_reported AS r (deployment, asked, model, fingerprint, first_at, last_at)
    VALUES (%s, %s, %s, %s, clock_timestamp(), clock_timestamp())
    ON CONFLICT (deployment, asked, model, fingerprint) DO UPDATE SET last_at = clock_timestamp()"""
"""Several are written in one transaction: the time of the clock keeps them in order."""


class _Model(msgspec.Struct, frozen=True):
    model: str = ""


class _Answer(msgspec.Struct, frozen=True):
    model: str = ""
    system_fingerprint: str | None = None
    message: _Model | None = None
    """In the first event of Anthropic's streams."""
    response: _Model | None = None
    """In the first event of a stream of Responses."""


_decode = msgspec.json.Decoder(_Answer).decode
Version = tuple[str, str, str, str]
"""deployment, the model that was requested, the model and the fingerprint that it reports"""


class _Reported:
    """What one deployment reported since `began`, in seconds of the clock of `is_due`."""

    __slots__ = ("began", "next_read", "versions")

    def __init__(self, now: float) -> None:
        self.began = self.next_read = now
        self.versions: set[Version] = set()


class ModelVersions(WriteBehindQueue[Version]):
    """The versions reported to one worker. They are queued in the order of the reports: the later one is newer."""

    def __init__(self, url: str) -> None:
        super().__init__("versions that upstreams report", _MAX_WAITING)
        self._url = url
        self._known: dict[str, _Reported] = {}
        """By deployment."""

    def is_due(self, deployment: str, now: float) -> bool:
        """Whether the next answer of a deployment is to be read. `now`: seconds of a monotonic clock."""
        known = self._known.get(deployment)
        if known is None:
            known = self._known[deployment] = _Reported(now)
        if now < known.next_read:
            return False
        known.next_read = now + INTERVAL_SECONDS
        if now - known.began > DAY_SECONDS:
            known.began = now
            if len(known.versions) >= MAX_VERSIONS:
                known.versions.clear()
        return True

    def record_answer(self, deployment: Deployment, data: bytes) -> bool:
        """Record the version that an answer, or an event of a stream, reports. Returns whether it reports one."""
        try:
            answer = _decode(data)
        except DECODE_ERRORS:
            return False
        model = _storable(answer.model or (answer.message or answer.response or _Model()).model)
        fingerprint = _storable(answer.system_fingerprint or "")
        if not model and not fingerprint:
            return False
        version = (deployment.name, deployment.upstream_model, model, fingerprint)
        known = self._known.setdefault(deployment.name, _Reported(0.0)).versions
        if version not in known and len(known) < MAX_VERSIONS:
            known.add(version)
            self.add(version)
        return True

    async def put(self, facts: Sequence[Version]) -> None:
        await insert(self._url, _ADD, facts)


def _storable(text: str) -> str:
    """The printable characters: PostgreSQL has no U+0000, and one such name would hold up all others."""
    return "".join(c for c in text[:MAX_CHARS] if c.isprintable())


class VersionReader(RelayWrapper):
    """Reads the version from the first events of a stream; Azure's very first one names none."""

    __slots__ = ("_deployment", "_events_left", "_versions")

    def __init__(self, inner: Relay, versions: ModelVersions, deployment: Deployment) -> None:
        super().__init__(inner)
        self._versions = versions
        self._deployment = deployment
        self._events_left = MAX_EVENTS

    def feed(self, data: bytes) -> bytes:
        if self._events_left:
            self._events_left = 0 if self._versions.record_answer(self._deployment, data) else self._events_left - 1
        return self._inner.feed(data)
