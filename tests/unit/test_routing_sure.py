"""When the router is sure: of words that it knows, of expectations that held, of what a call is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.test_routing_model import make_matrix

from groundplan.economics.routing.decide.choose import choose, is_in_doubt, proven_point
from groundplan.economics.routing.decide.features import BUCKETS, hash_counts, known_share, split_words, word_hashes
from groundplan.economics.routing.learn.evaluate import apply
from groundplan.economics.routing.learn.fit import _vocabulary, train
from groundplan.economics.routing.learn.operating_points import doubtful_ranges
from groundplan.economics.routing.model import Context, Matrix, Router, Sample
from groundplan.economics.routing.versions.artifact import dump, load


@pytest.fixture(scope="module")
def router() -> Router:
    return train(make_matrix(), None, (0.99, 0.95))


def pseudo(dice: np.random.Generator, count: int, letters: str) -> list[str]:
    """So many different words of eight letters."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(dice.choice(list(letters), 8))] = None
    return list(found)


@pytest.mark.soak
def test_nonsense_is_strange_to_a_large_set_too() -> None:
    """With 30,000 words and their pairs nearly every bucket is taken, and by buckets nothing would be strange."""
    dice = np.random.default_rng(1)
    known, unknown = pseudo(dice, 30_000, "abcdefghij"), pseudo(dice, 3000, "klmnopqrst")
    samples = [Sample(str(i), str(i), " ".join(dice.choice(known, 40))) for i in range(5000)]
    words, least = _vocabulary(samples)
    taken = {bucket for sample in samples for bucket in hash_counts(split_words(sample.prompt))}
    assert len(taken) > 0.7 * BUCKETS
    assert len(words) <= 30_000 and 0.3 < least <= 0.6
    fresh = [known_share(word_hashes(list(dice.choice(known, 40))), words) for _ in range(300)]
    strange = [known_share(word_hashes(list(dice.choice(unknown, 40))), words) for _ in range(300)]
    assert min(fresh) >= least
    assert max(strange) < 0.1 < least
    assert known_share(word_hashes(unknown), words) < 0.001, "which is how often a word is taken for known"


def test_other_languages_are_strange_and_what_is_known_in_one_group_alone_counts(router: Router) -> None:
    both = frozenset(router.models)
    german = "was sind eure \u00f6ffnungszeiten am sonntag und wo ist das b\u00fcro"
    assert choose(router, german, None, both, "0.95").by == "unsure"
    full = replace(router, idf=np.ones(BUCKETS, dtype=np.float32))  # as a large set leaves no bucket without a word
    assert choose(full, german, None, both, "0.95").by == "unsure"
    assert choose(router, "12 + 30", None, both, "0.95").by == "unsure", "training had no sums"
    told = [Sample(str(i), "one", f"alpha beta word{i}") for i in range(20)]
    _, least = _vocabulary([*told, *(Sample(f"b{i}", f"b{i}", "gamma delta") for i in range(20))])
    assert least == 0.0, "words that one group alone uses tell nothing of what others will"


def test_where_left_out_prompts_did_worse_than_expected_the_router_is_unsure(router: Router) -> None:
    dice = np.random.default_rng(2)
    matrix = make_matrix(1000, seed=4)
    told = np.hstack([np.full((1000, 1), 0.95), np.linspace(0.5, 0.95, 1000)[:, None], np.ones((1000, 2))])
    expected = told[:, 1].copy()
    wrong = (expected > 0.80) & (expected < 0.86)
    scores = np.stack([np.ones(1000), dice.random(1000) < np.where(wrong, 0.3, expected + 0.05)], axis=1).astype(float)
    found = doubtful_ranges(replace(matrix, scores=scores), told, router, {"0.95": (3.0, 0.0)})
    assert set(found) == {"0.95"}
    assert all(0.03 < low <= high < 0.21 for low, high in found["0.95"])
    assert is_in_doubt(found["0.95"], np.array([0.12, 0.4])).tolist() == [True, False]
    honest = np.stack([np.ones(1000), dice.random(1000) < expected + 0.05], axis=1).astype(float)
    assert doubtful_ranges(replace(matrix, scores=honest), told, router, {"0.95": (3.0, 0.0)}) == {}
    careful = replace(router, doubted={"0.95": [(-1.0, 1.0)]})
    text, both = "what are your opening hours on n900", frozenset(router.models)
    assert choose(router, text, None, both, "0.95").model == "small"
    told_why = choose(careful, text, None, both, "0.95")
    assert (told_why.model, told_why.by) == ("large", "unsure") and "did worse" in told_why.reason
    easy = replace(matrix, samples=(Sample("1", "1", text),), scores=matrix.scores[:1], costs=matrix.costs[:1])
    assert [apply(each, easy, None, (0.95,))[0]["0.95"].tolist() for each in (router, careful)] == [[1], [0]]


def test_a_share_that_was_not_trained_is_kept_by_the_next_stricter_one(router: Router) -> None:
    assert set(router.points) == {"0.99", "0.95"}
    text, both = "what are your opening hours on n900", frozenset(router.models)
    between = choose(router, text, None, both, "0.97")
    assert (between.model, between.by) == ("small", "learned")
    assert "proven to keep 0.99; 0.97 was not trained" in between.reason
    assert choose(router, text, None, both, "0.995").by == "strongest"
    assert proven_point(replace(router, points={"0.95": (1.0, 0.0)}), "0.97") is None


def test_what_a_call_is_for_tells_where_words_do_not(router: Router) -> None:
    dice = np.random.default_rng(3)
    hard = dice.random(300) < 0.5
    tasks = [("endpoint chat.completions", "feature legal" if each else "feature faq") for each in hard]
    samples = tuple(
        Sample(str(i), str(i), f"please look at case {i}", Context(1, 0, None, tasks[i])) for i in range(300)
    )
    scores = np.stack([np.ones(300), np.where(hard, 0.0, 1.0)], axis=1)
    tagged = load(
        dump(train(Matrix(samples, ("large", "small"), scores, np.tile([0.01, 0.001], (300, 1))), None, (0.99,)))
    )
    both = frozenset(tagged.models)
    assert tagged.tasks and not router.tasks
    taken = [choose(tagged, "please look at case 900", None, both, "0.99", context=Context(1, 0, None, task)).model
             for task in (("feature legal",), ("feature faq",))]  # fmt: skip
    assert taken == ["large", "small"]
    text, known = "what are your opening hours on n900", Context(1, 0, None, ("feature faq", "tools"))
    bare = choose(router, text, None, both, "0.95", context=Context(1, 0))
    assert choose(router, text, None, both, "0.95", context=known).expected == bare.expected
