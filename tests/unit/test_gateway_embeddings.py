"""Embeddings: who may answer, and what an answer has to be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.integration.gateway_stack import deployment

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces.embeddings import EMBEDDINGS


def asked(**more: Any) -> Ask:
    body = {"model": "auto", "input": ["a", "b"], **more}
    return EMBEDDINGS.read(Request(0.0, body=json.dumps(body).encode()))


def of(model: str, name: str, **more: Any) -> Deployment:
    return msgspec.structs.replace(deployment(name, 1, kind="embeddings", **more), model=model)


def test_tokens_go_to_who_reads_them() -> None:
    """They were sent as so many texts, the numbers themselves, to whoever speaks another API."""
    plain, google = of("m/one", "plain"), of("m/one", "google", api="gemini")
    for tokens in ([1, 2], [[1, 2], [3]], ["a", [3]]):
        assert EMBEDDINGS.able(asked(input=tokens), (google, plain)) == (plain,)
        with pytest.raises(Invalid, match="tokens cannot be said in the API of gemini"):
            EMBEDDINGS.able(asked(input=tokens), (google,))


def test_no_vector_of_another_model_stands_in_for_one() -> None:
    """Whoever keeps vectors of two models compares what compares with nothing, and nobody tells."""
    first, other, same = of("m/one", "first"), of("m/two", "other"), of("m/one", "same")
    assert EMBEDDINGS.able(asked(), (first, other, same)) == (first, same)
    assert EMBEDDINGS.able(asked(), (other, first, same)) == (other,)
    google = of("m/one", "google", api="gemini")
    assert EMBEDDINGS.able(asked(task="x"), (google, other, same)) == (same,)
    with pytest.raises(Invalid, match="task cannot be said"):
        EMBEDDINGS.able(asked(task="x"), (google, other))
