"""Bytes that are no router are refused, whatever is wrong with them; those of older formats are read."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from tests.unit.test_routing_model import make_matrix, trained_router

from groundplan.core.errors import Invalid
from groundplan.economics.routing.decide.features import BUCKETS, SURFACE
from groundplan.economics.routing.decide.predict import predict
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import Matrix, Router
from groundplan.economics.routing.versions.artifact import dump, load


@pytest.fixture(scope="module")
def knowing() -> Router:
    return trained_router()


def as_kept(router: Router, **changes: Any) -> bytes:
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(dump(router)), **changes})


NAN, INF = float("nan"), float("inf")
WRONG: dict[str, dict[str, Any]] = {
    "mean scores": {"mean_scores": [NAN, 0.5]},
    "mean costs": {"mean_costs": [NAN, 0.1]},
    "endless costs": {"mean_costs": [INF, 0.1]},
    "mean of the surface": {"surface_mean": [NAN] * SURFACE},
    "scale of the surface": {"surface_scale": [0.0] * SURFACE},
    "idf": {"idf": [[BUCKETS], np.full(BUCKETS, np.nan, dtype="<f2").tobytes()]},
    "centre": {"centre": [NAN] * 16},
    "width of landmarks": {"landmarks": [[1, 15], b"\0" * 30]},
    "no landmarks": {"landmarks": [[0, 16], b""]},
    "points": {"points": {"0.99": [NAN, 0.0]}},
    "names of points": {"points": {"much": [0.1, 0.0]}},
    "strange words": {"strange_words": NAN},
    "strange likeness": {"strange_likeness": INF},
    "words": {"words": b""},
    "order of words": {"words": b"\2\0\0\0\1\0\0\0"},
    "doubt": {"doubted": {"0.99": [[0.2, 0.1]]}},
    "other parts of questions": {"brief": [48, 16]},
    "other layers": {"layers": 5},
}


@pytest.mark.parametrize("which", sorted(WRONG))
def test_numbers_that_are_none_are_refused(knowing: Router, which: str) -> None:
    assert load(as_kept(knowing)).models == knowing.models
    with pytest.raises(Invalid, match="not a learned router"):
        load(as_kept(knowing, **WRONG[which]))


@pytest.mark.parametrize(("place", "value"), [(1, [NAN] * 4), (2, [NAN] * 2), (3, [INF] * 2), (4, [NAN] * 6)])
def test_a_predictor_that_is_no_numbers_is_refused(knowing: Router, place: int, value: list[float]) -> None:
    head = msgspec.msgpack.decode(dump(knowing))["full"]
    head[place] = value
    with pytest.raises(Invalid, match="no numbers"):
        load(as_kept(knowing, full=head))


def test_a_router_of_format_7_has_any_number_of_tokens_embedded(knowing: Router) -> None:
    kept = msgspec.msgpack.decode(dump(knowing))
    assert (kept["tokens"], load(dump(knowing)).tokens) == (78, 78)
    assert load(msgspec.msgpack.encode({**kept, "format": 7})).tokens == 0
    assert load(msgspec.msgpack.encode({**kept, "tokens": 30})).tokens == 30, "as it was trained"


def test_a_router_of_format_8_has_questions_embedded_by_all_layers(knowing: Router) -> None:
    kept = msgspec.msgpack.decode(dump(knowing))
    assert (kept["layers"], load(dump(knowing)).layers) == (3, 3)
    assert load(msgspec.msgpack.encode({**kept, "format": 8})).layers == 0
    assert load(msgspec.msgpack.encode({**kept, "layers": 0})).layers == 0, "as it was trained"


def test_a_router_of_format_3_is_read_and_knows_words_by_their_buckets(knowing: Router) -> None:
    kept = msgspec.msgpack.decode(dump(knowing))
    for name in ("words", "doubted", "tasks", "brief"):
        del kept[name]
    before = load(msgspec.msgpack.encode({**kept, "format": 3}))
    assert (len(before.words), before.doubted, before.tasks, before.texts) == (0, {}, False, False)
    assert not before.apart
    fourth = load(msgspec.msgpack.encode({**kept, "format": 4, "words": knowing.words.tobytes()}))
    assert fourth.words.size and not fourth.apart
    assert predict(before, "garden kitten muffin").scores == pytest.approx(
        predict(knowing, "garden kitten muffin").scores
    )


def test_more_models_than_can_be_read_are_refused_before_anything_is_learned() -> None:
    few = make_matrix(40)
    names = tuple(f"m{i}" for i in range(130))
    many = Matrix(few.samples, names, np.ones((40, 130)), np.ones((40, 130)))
    with pytest.raises(Invalid) as told:
        train(many, None, ())
    assert (told.value.code, bool(told.value.hint)) == ("router_models", True)
