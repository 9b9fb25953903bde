"""Which version of its model an upstream reports: looked at now and then, and written to PostgreSQL only when it is
new.

Not every answer is read for it: of each deployment one in `EVERY` seconds. One that says something else each time, as a
server does that makes up a fingerprint for each answer, is told `MOST` times in a day. What a change means is
governance's.
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

EVERY = 1.0
"""Seconds between two answers of a deployment that are looked at, in one worker."""
LOOKS = 3
"""Events of a stream that are looked at."""
LONGEST = 200
MOST = 100
"""Versions of one deployment that are told in `DAY_SECONDS`."""
DAY_SECONDS = 86_400.0
_MOST_WAITING = 10_000
_ADD = """INSERT INTO model_reported AS r (deployment, asked, model, fingerprint, first_at, last_at)
    VALUES (%s, %s, %s, %s, clock_timestamp(), clock_timestamp())
    ON CONFLICT (deployment, asked, model, fingerprint) DO UPDATE SET last_at = clock_timestamp()"""
"""Several are told in one transaction: the time of the clock keeps them in order."""


class _Model(msgspec.Struct, frozen=True):
    model: str = ""


class _Says(msgspec.Struct, frozen=True):
    model: str = ""
    system_fingerprint: str | None = None
    message: _Model | None = None
    """In the first event of Anthropic's streams."""
    response: _Model | None = None
    """In the first event of a stream of Responses."""


_decode = msgspec.json.Decoder(_Says).decode
Version = tuple[str, str, str, str]
"""deployment, the version that was asked for, the model and the fingerprint that it reports"""


class _Known:
    """What one deployment said since `began`, in seconds of the same clock as `due`."""

    __slots__ = ("began", "next", "versions")

    def __init__(self, now: float) -> None:
        self.began = self.next = now
        self.versions: set[Version] = set()


class ModelVersions(WriteBehindQueue[Version]):
    """Of one worker. They wait in the order in which they were reported: what comes later is the newer version."""

    def __init__(self, url: str) -> None:
        super().__init__("versions that upstreams report", _MOST_WAITING)
        self._url = url
        self._known: dict[str, _Known] = {}
        """By deployment."""

    def due(self, deployment: str, now: float) -> bool:
        """Whether its next answer is to be looked at. `now`: seconds of a clock that only goes on."""
        known = self._known.get(deployment)
        if known is None:
            known = self._known[deployment] = _Known(now)
        if now < known.next:
            return False
        known.next = now + EVERY
        if now - known.began > DAY_SECONDS:
            known.began = now
            if len(known.versions) >= MOST:
                known.versions.clear()
        return True

    def look(self, deployment: Deployment, data: bytes) -> bool:
        """Take up what an answer, or an event of a stream, says of its version; whether it says any."""
        try:
            says = _decode(data)
        except DECODE_ERRORS:
            return False
        named = says.model or (says.message or says.response or _Model()).model
        print_ = says.system_fingerprint or ""
        if not _shown(named) and not _shown(print_):
            return False
        version = (deployment.name, deployment.upstream_model, _shown(named), _shown(print_))
        known = self._known.setdefault(deployment.name, _Known(0.0)).versions
        if version not in known and len(known) < MOST:
            known.add(version)
            self.add(version)
        return True

    async def put(self, facts: Sequence[Version]) -> None:
        await insert(self._url, _ADD, facts)


def _shown(text: str) -> str:
    """What can be kept: PostgreSQL has no U+0000, and one such name would hold up all others."""
    return "".join(c for c in text[:LONGEST] if c.isprintable())


class VersionReader(RelayWrapper):
    """The stream of an answer that is looked at, in its first events only: Azure's very first one names nothing."""

    __slots__ = ("_deployment", "_left", "_reported")

    def __init__(self, inner: Relay, reported: ModelVersions, deployment: Deployment) -> None:
        super().__init__(inner)
        self._reported = reported
        self._deployment = deployment
        self._left = LOOKS

    def feed(self, data: bytes) -> bytes:
        if self._left:
            self._left = 0 if self._reported.look(self._deployment, data) else self._left - 1
        return self._inner.feed(data)
