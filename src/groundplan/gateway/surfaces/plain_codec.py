"""Codecs of surfaces with a JSON request and one JSON object as answer: the caller's fields with the upstream's
model."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer

VOYAGE = re.compile(r"https?://(?:api\.voyageai|ai\.mongodb)\.com[:/]")
"""URLs of Voyage, which refuses some of the usual field names and has others."""
_encode = msgspec.json.Encoder().encode


class PlainCodec(ABC):
    """The codec of one path of OpenAI-shaped upstreams. Subclasses parse the answer."""

    translated = False

    def __init__(self, path: bytes) -> None:
        self._path = path

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return self._path

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:  # noqa: ARG002
        """The caller's bytes with the upstream's name for the model."""
        return replace_fields(ask.body, ask.fields, {"model": _encode(deployment.upstream_model)})

    @abstractmethod
    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer: ...

    def new_relay(self, ask: Ask) -> Relay:  # noqa: ARG002 -- the protocol's signature
        raise AssertionError("this surface has no streams")


def malformed() -> Malformed:
    return Malformed("the upstream's answer is not what the API promises")
