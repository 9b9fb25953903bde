"""Of prompts that were never seen a router expects as much as of those that were left out, which its points come from.

Most pairs of words of a new prompt may be new, too, and many of its words.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from benchmarks.routing_sets import Kind
from benchmarks.routing_sets import make_set as drawn

from groundplan.economics.routing.decide.features import hash_counts, split_words
from groundplan.economics.routing.decide.predict import predict
from groundplan.economics.routing.learn.evaluation_set import Row, matrix_of
from groundplan.economics.routing.learn.fit import Scales, feature_matrix, fit_scales, prepare, ridge, targets_of, train
from groundplan.economics.routing.model import Doubles, Matrix

TOPICS = Kind(rows=400, topics=8, by_surface=0.0)


@pytest.fixture(scope="module")
def topics() -> Matrix:
    return matrix_of([msgspec.convert(row, Row) for row in drawn(TOPICS, 3).rows])


def test_what_was_left_out_is_read_as_if_nobody_had_seen_it(topics: Matrix) -> None:
    prepared, (targets, _) = prepare(topics.samples, None), targets_of(topics)
    rest, fold = np.arange(300), np.arange(300, 400)

    def gaps(scales: Scales) -> Doubles:
        features = feature_matrix(scales, prepared, embedded=False)
        told = ridge(features[rest], targets[rest], 3.0, prepared.shapes.shape[1]).predict(features[fold])
        return np.asarray(told[:, 1] - told[:, 0])

    left_out, unseen = gaps(fit_scales(prepared)), gaps(fit_scales(prepared.take(rest)))
    assert np.corrcoef(left_out, unseen)[0, 1] > 0.98
    assert unseen.std() / left_out.std() == pytest.approx(1.0, abs=0.1)


def test_what_training_never_saw_has_a_part_in_the_length_of_a_prompt(topics: Matrix) -> None:
    router = train(topics, None, ())
    text = topics.samples[0].prompt
    seen = set(hash_counts([word for sample in topics.samples for word in split_words(sample.prompt)]))
    new = [word for word in (f"zz{chr(97 + n)}q" for n in range(8)) if not seen & set(hash_counts([word]))]
    assert len(new) > 4
    once = float(np.log(401 / 2) + 1)
    assert router.idf[next(iter(hash_counts(new[:1])))] == pytest.approx(once + np.log(2), rel=1e-5)
    assert router.idf.min() >= 1 and router.idf.max() == pytest.approx(once + np.log(2), rel=1e-5)
    gap = [float(np.ptp(predict(router, each).scores)) for each in (text, f"{text} {' '.join(new)}")]
    assert gap[0] != gap[1]
