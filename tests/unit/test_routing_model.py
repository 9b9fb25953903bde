"""The learned router: sets that would flatter are refused, folds never share a group, what is shipped is what was
trained, and a choice explains itself."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from benchmarks.routing import strong_share
from hypothesis import given
from hypothesis import strategies as st
from tests import made_database

from groundplan.cli.output import print_error
from groundplan.core.errors import Invalid
from groundplan.economics.routing.decide import forest, kernel
from groundplan.economics.routing.decide.choose import best_columns, choose
from groundplan.economics.routing.decide.features import (
    BUCKETS,
    SURFACE,
    abbreviate,
    hash_counts,
    split_words,
    surface_features,
)
from groundplan.economics.routing.decide.predict import blend_scores, predict
from groundplan.economics.routing.learn import boosted_trees
from groundplan.economics.routing.learn import kernel as kernels
from groundplan.economics.routing.learn.baselines import plain_ridge
from groundplan.economics.routing.learn.evaluate import (
    Evaluation,
    apply,
    choices_when_rephrased,
    evaluate,
    held_out_result,
)
from groundplan.economics.routing.learn.evaluation_set import folds_of, read_matrix
from groundplan.economics.routing.learn.fit import LEAST_ROWS, train
from groundplan.economics.routing.learn.operating_points import error_of_mean, operating_points
from groundplan.economics.routing.learn.perturb import KINDS
from groundplan.economics.routing.learn.stacking import fit_blend
from groundplan.economics.routing.model import Floats, Forest, Matrix, Router, Sample
from groundplan.economics.routing.versions.artifact import dump, load

EASY = ("what are your opening hours on {}", "please say hello to {} in one line", "where is the office of {}")
HARD = ("prove that the sum of {} odd numbers is even, step by step", "derive the variance of {} dependent draws")


def make_matrix(rows: int = 240, seed: int = 3) -> Matrix:
    """Prompts of which the hard ones need the large model nearly always, the easy ones nearly never."""
    dice = np.random.default_rng(seed)
    samples, scores, costs = [], [], []
    for number in range(rows):
        hard = bool(dice.random() < 0.4)
        words = HARD if hard else EASY
        text = words[int(dice.integers(len(words)))].format(f"n{number}")
        samples.append(Sample(str(number), f"g{number // 2}", text))
        small = dice.random() < (0.15 if hard else 0.97)
        scores.append([float(dice.random() < 0.96), float(small)])
        costs.append([0.010, 0.001])
    return Matrix(tuple(samples), ("large", "small"), np.array(scores), np.array(costs))


@pytest.fixture(scope="module")
def router() -> Router:
    return train(make_matrix(), None, (0.99, 0.95))


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "group": f"g{number}",
        "prompt": f"question number {number}?",
        "scores": {"a": 1.0, "b": 0.5},
        "costs": {"a": 0.01, "b": 0.001},
    } | changes


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_set_is_read_with_its_models_in_order(tmp_path: Path) -> None:
    found = read_matrix(written(tmp_path, [row(i) for i in range(30)]))
    assert found.models == ("a", "b")
    assert found.scores.shape == (30, 2)
    assert found.samples[3] == Sample("r3", "g3", "question number 3?")


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"prompt": "  QUESTION number 4"}, "evaluation_leak", "again in group"),
        ({"prompt": "Hi! Could you please tell me, question number 4? Thanks"}, "evaluation_leak", "again in group"),
        ({"id": "r4"}, "evaluation_set", "is in line 5"),
        ({"scores": {"a": 1.4, "b": 0}}, "evaluation_set", "between 0 and 1"),
        ({"costs": {"a": -1, "b": 0}}, "evaluation_set", "negative"),
        ({"costs": {"a": 1e300, "b": 0}}, "evaluation_set", "above a million"),
        ({"scores": {"a": 1.0}}, "evaluation_set", "same two or more models"),
        ({"prompt": "  "}, "evaluation_set", "empty"),
        ({"scores": "much"}, "evaluation_set", "not a row"),
    ],
)
def test_a_set_that_would_mislead_is_refused_with_its_line(
    tmp_path: Path, changes: dict[str, Any], code: str, said: str
) -> None:
    rows = [row(i) for i in range(30)]
    rows[9] = row(9, **changes)
    with pytest.raises(Invalid) as told:
        read_matrix(written(tmp_path, rows))
    assert told.value.code == code
    assert said in told.value.message
    assert str(told.value.where).endswith("set.jsonl:10:1")
    assert told.value.hint


@pytest.mark.parametrize(("count", "proven"), [(20, False), (90, False), (120, True)])
def test_too_few_prompts_without_a_loss_prove_no_share(count: int, proven: bool) -> None:
    """The cheap model was right whenever the dear one was: of twenty prompts that shows little, of two hundred much."""
    samples = tuple(Sample(str(place), str(place), f"question {place}") for place in range(count))
    scores, costs = np.ones((count, 2)), np.tile([0.1, 1.0], (count, 1))
    matrix = Matrix(samples, ("a", "b"), scores, costs)
    told = np.hstack([np.tile([0.5, 1.0], (count, 1)), np.ones((count, 2))])
    known = SimpleNamespace(mean_costs=np.array([0.1, 1.0]), strongest=1)
    points = operating_points(matrix, told, cast("Router", known), (0.99,))
    taken = best_columns(told[:, :2], costs, points["0.99"][0], 1.0) if points else np.ones(count)
    assert bool((taken == 0).all()) is proven


def test_every_problem_of_a_set_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(i, scores={"a": 1.4, "b": 0}) for i in range(30)]
    with pytest.raises(Invalid, match="is not between 0 and 1 \\(and 29 more\\)") as told:
        read_matrix(written(tmp_path, rows))
    print_error(told.value, as_json=False)
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("  ")]
    assert sum(":1:1: " in line for line in lines) == 1
    assert len(lines) == 22 and ":21:1: 10 more problems" in lines[-2]


def test_a_set_on_which_no_model_is_ever_right_is_refused(tmp_path: Path) -> None:
    nothing = [row(i, scores={"a": 0.0, "b": 0}) for i in range(30)]
    with pytest.raises(Invalid, match="no model is ever right") as told:
        read_matrix(written(tmp_path, nothing))
    assert told.value.code == "evaluation_set" and told.value.hint
    nothing[4] = row(4, scores={"a": 0.0, "b": 0.1})
    assert len(read_matrix(written(tmp_path, nothing)).samples) == 30


def test_one_model_alone_is_told_once(tmp_path: Path) -> None:
    rows = [row(i, scores={"a": 1.0}, costs={"a": 0.1}) for i in range(30)]
    with pytest.raises(Invalid) as told:
        read_matrix(written(tmp_path, rows))
    assert "nothing to choose" in told.value.message and len(told.value.problems) == 1


def test_the_same_prompt_within_one_group_is_no_leak(tmp_path: Path) -> None:
    rows = [row(i) for i in range(30)]
    rows[9] = row(9, prompt=rows[4]["prompt"], group=rows[4]["group"])
    assert len(read_matrix(written(tmp_path, rows)).samples) == 30


def test_one_group_and_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="one group"):
        read_matrix(written(tmp_path, [row(i, group="all") for i in range(30)]))
    with pytest.raises(Invalid, match="of 2 groups"):
        read_matrix(written(tmp_path, [row(i, group="ab"[i % 2]) for i in range(30)]))
    with pytest.raises(Invalid, match="too few"):
        read_matrix(written(tmp_path, [row(i) for i in range(5)]))
    with pytest.raises(Invalid, match="cannot be read"):
        read_matrix(tmp_path / "absent")


@given(st.lists(st.integers(0, 12), min_size=2, max_size=80), st.integers(2, 6), st.integers(0, 3))
def test_folds_have_every_row_once_and_share_no_group(numbers: list[int], folds: int, seed: int) -> None:
    groups = [str(number) for number in numbers]
    parts = folds_of(groups, folds, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    held = [{groups[i] for i in part} for part in parts]
    assert sum(map(len, held)) == len(set(groups))


@given(st.text(max_size=400))
def test_any_text_has_features(text: str) -> None:
    words = split_words(text)
    counts = hash_counts(words)
    assert all(0 <= bucket < BUCKETS for bucket in counts)
    shape = surface_features(text, words)
    assert shape.shape == (SURFACE,)
    assert np.isfinite(shape).all()


def test_what_is_shipped_decides_like_what_was_trained(router: Router) -> None:
    data = dump(router)
    again = load(data)
    assert dump(again) == data
    assert len(data) < 2 << 20
    fresh = make_matrix(seed=9)
    _, before, _ = apply(router, fresh, None, (0.99,))
    _, after, _ = apply(again, fresh, None, (0.99,))
    assert np.abs(before - after).max() < 0.01


def test_trees_are_kept_as_they_were_learned() -> None:
    dice = np.random.default_rng(5)
    shapes = dice.normal(size=(400, SURFACE)).astype(np.float32)
    good = 1 / (1 + np.exp(-2 * shapes[:, 3]))
    scores = np.stack([np.full(400, 0.9), good], axis=1)
    grown = boosted_trees.grow(shapes, scores, 1)
    assert np.allclose(forest.to_scores(forest.to_parts(scores)), scores)
    told = forest.predict_all(grown, shapes)
    assert np.corrcoef(told[:, 1] - told[:, 0], scores[:, 1] - scores[:, 0])[0, 1] > 0.9
    few = train(make_matrix(60), None, ())
    few = replace(few, text=replace(few.text, blend=(0.5, 0.5, 0.5, 0.5)))
    again = load(dump(replace(few, trees=grown))).trees
    assert again is not None
    assert np.abs(forest.predict_all(again, shapes) - told).max() < 1e-6
    broken = replace(grown, left=grown.left + 1000)
    with pytest.raises(Invalid, match="trees are broken"):
        load(dump(replace(few, trees=broken)))


def walked(grown: Forest, shape: Floats) -> list[float]:
    """What each tree says, from its root on."""
    told = []
    for tree in range(len(grown.owner)):
        node = 0
        while grown.left[tree, node] != node:
            way = grown.left if shape[grown.feature[tree, node]] <= grown.threshold[tree, node] else grown.right
            node = int(way[tree, node])
        told.append(float(grown.value[tree, node]))
    return told


@pytest.mark.parametrize("models", [2, 5])
def test_trees_that_are_asked_all_at_once_say_what_each_of_them_says(models: int) -> None:
    dice = np.random.default_rng(models)
    shapes = dice.normal(size=(300, 7)).astype(np.float32)
    weights = dice.normal(size=(7, models))
    grown = boosted_trees.grow(shapes, 1 / (1 + np.exp(-shapes @ weights)), 1)
    ties = np.unique(grown.threshold)[:7].astype(np.float32)
    asked = np.concatenate([shapes[:80], dice.normal(size=(60, 7)).astype(np.float32), ties[None, :]])
    told = forest.predict_all(grown, asked)
    for row, shape in enumerate(asked):
        sums = np.bincount(grown.owner, weights=walked(grown, shape), minlength=models)
        assert told[row] == pytest.approx(forest.to_scores(sums), abs=1e-6)
        assert forest.predict_scores(grown, shape) == pytest.approx(told[row], abs=1e-6)


def test_a_tree_without_a_question_and_one_with_too_many() -> None:
    leaf, one = np.zeros((1, 1), dtype=np.int64), np.ones((1, 1), dtype=np.float32)
    bare = forest.build_forest(leaf, one, leaf, leaf, one, np.zeros(1, dtype=np.int64), 1, 0)
    assert forest.predict_all(bare, np.zeros((3, 2), dtype=np.float32)).tolist() == [[1.0]] * 3
    feature, owner = np.zeros((2, 19), dtype=np.int64), np.zeros(2, dtype=np.int64)
    left, right, value = feature.copy(), feature.copy(), np.arange(38, dtype=np.float32).reshape(2, 19)
    left[0, :3], right[0, :3] = (1, 1, 2), (2, 1, 2)  # a short row is filled up with zeros
    small = forest.build_forest(feature, value, left, right, value, owner, 1, 1)
    assert forest.predict_all(small, np.array([[-1.0], [1.0]], dtype=np.float32)).tolist() == [[20.0], [21.0]]
    row = np.arange(2 * forest.MOST_ASKED + 3)[None, :]
    deep = np.where(row < forest.MOST_ASKED + 1, row + 1, row)
    with pytest.raises(ValueError, match="too large"):
        forest.build_forest(row, row.astype(np.float32), deep, deep, row.astype(np.float32), leaf[0], 1, 20)


FAR, NEAR = ("mitral", "aortic", "portal", "septal"), ("garden", "kitten", "muffin", "window")
"""Words that look alike on the surface; what was asked with them tells how hard it is."""


def entangled(rows: int, seed: int) -> Matrix:
    """Prompts that the small model fails only where both the subject is far and the prompt is long."""
    dice = np.random.default_rng(seed)
    samples, scores = [], []
    for number in range(rows):
        far, long = dice.random(2) < 0.5
        words = dice.choice(FAR if far else NEAR, size=24 if long else 6)
        samples.append(Sample(str(number), f"g{number}", " ".join(words)))
        scores.append([1.0, float(not (far and long))])
    return Matrix(tuple(samples), ("large", "small"), np.array(scores), np.tile([0.01, 0.001], (rows, 1)))


def placed(matrix: Matrix, seed: int) -> Floats:
    """Unit vectors of which one direction tells the subject."""
    vectors = np.random.default_rng(seed).normal(size=(len(matrix.samples), 16))
    vectors[:, 0] = [4.0 if sample.prompt.split()[0] in FAR else -4.0 for sample in matrix.samples]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def trained_router() -> Router:
    """One of these, which is learned once for a run of the tests and read by whoever asks."""
    kept = made_database.folder() / "known.router"
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            matrix = entangled(400, 5)
            kept.write_bytes(dump(train(matrix, placed(matrix, 5), (0.99,))))
    return load(kept.read_bytes())


@pytest.fixture(scope="module")
def knowing() -> Router:
    return trained_router()


def test_with_few_prompts_the_regressions_stand_alone(knowing: Router) -> None:
    matrix = entangled(LEAST_ROWS - 1, 5)
    few = train(matrix, placed(matrix, 5), ())
    assert few.full is not None and knowing.full is not None
    assert (few.trees, few.meant, few.text.kernel, few.full.kernel) == (None, None, None, None)
    assert None not in (knowing.trees, knowing.meant, knowing.text.kernel, knowing.full.kernel)


@pytest.mark.parametrize("embedded", [False, True])
def test_trees_join_what_words_or_meaning_tell_to_what_the_surface_tells(knowing: Router, embedded: bool) -> None:
    fresh = entangled(120, 6)
    vectors = placed(fresh, 6)
    told = np.array(
        [
            predict(knowing, sample.prompt, vectors[i] if embedded else None).scores[1]
            for i, sample in enumerate(fresh.samples)
        ]
    )
    # a sum of what each tells expects 0.75 where one of both is so, and 0.25 where both are
    assert told[fresh.scores[:, 1] == 1].min() > 0.85
    assert told[fresh.scores[:, 1] == 0].max() < 0.15


def test_where_meaning_alone_tells_the_subject_trees_look_at_it(knowing: Router) -> None:
    matrix = entangled(400, 5)
    vectors = placed(matrix, 5)
    masked = tuple(replace(each, prompt=" ".join(["garden"] * len(each.prompt.split()))) for each in matrix.samples)
    router = train(replace(matrix, samples=masked), vectors, (), alone=False)
    fresh = entangled(60, 6)
    asked = [predict(router, " ".join(["garden"] * len(sample.prompt.split())), vector).scores[1]
             for sample, vector in zip(fresh.samples, placed(fresh, 6), strict=True)]  # fmt: skip
    told = np.array(asked)
    assert told[fresh.scores[:, 1] == 1].min() > 0.8
    assert told[fresh.scores[:, 1] == 0].max() < 0.2


def test_a_kernel_is_kept_as_it_was_learned(knowing: Router) -> None:
    looked = np.random.default_rng(9).normal(size=(1200, 6)).astype(np.float32)
    vectors = placed(entangled(1200, 9), 9)
    good = (np.tanh(2 * looked[:, 1]) * np.sign(vectors[:, 0]) + 1) / 2
    scores = np.stack([np.full(1200, 0.9), good], axis=1)
    fitted = kernels.fit(looked[:1000], vectors[:1000], scores[:1000], 4, 1)
    told = kernel.predict_scores(fitted, looked, vectors)
    assert np.abs(told[:, 0] - 0.9).max() < 1e-3
    assert np.corrcoef(told[1000:, 1], good[1000:])[0, 1] > 0.8
    assert kernel.predict_scores(fitted, looked[7], vectors[7]) == pytest.approx(told[7], abs=1e-4)
    assert knowing.full is not None and knowing.full.kernel is not None
    again = load(dump(knowing))
    assert again.full is not None and again.full.kernel is not None
    for name in ("mean", "deviation", "reach", "landmarks", "squares", "weights", "bias"):
        assert np.array_equal(getattr(again.full.kernel, name), getattr(knowing.full.kernel, name)), name


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, [0.0]),
        (1, [0.0] * (SURFACE + 4)),
        (2, [float("nan")] * (SURFACE + 4)),
        (3, [[2, 2], b"\0" * 8]),
        (4, b"\0" * 8),
        (5, [1.0]),
    ],
)
def test_a_kernel_of_another_shape_is_refused(knowing: Router, place: int, value: Any) -> None:
    kept = msgspec.msgpack.decode(dump(knowing))
    assert load(msgspec.msgpack.encode(kept)).models == knowing.models
    kept["full"][6][place] = value
    with pytest.raises(Invalid, match="not a learned router"):
        load(msgspec.msgpack.encode(kept))


def test_the_beginning_and_the_end_of_a_prompt_are_embedded() -> None:
    words = [f"w{number}" for number in range(100)]
    assert abbreviate(" ".join(words)).split() == words[:24] + words[-10:]
    assert abbreviate(" ".join(words[:34])) == " ".join(words[:34])


def test_writing_without_spaces_is_read_character_by_character() -> None:
    assert split_words("请问SQL怎么写？ok 12345") == ["请", "问", "sql", "怎", "么", "写", "？", "ok", "0"]
    assert split_words("请问SQL怎么写？", apart=False) == ["请问sql怎么写", "？"]
    assert split_words("it's a naïve Prüfung", apart=True) == split_words("it's a naïve Prüfung", apart=False)
    assert set(hash_counts(split_words("退款多久"))) & set(hash_counts(split_words("多久退款")))


def test_a_text_without_spaces_is_embedded_as_briefly_as_others() -> None:
    assert abbreviate("退款" * 3000) == "退款" * 12 + " " + "退款" * 5
    assert abbreviate("a" * 9000) == "a" * 40 * 24 + " " + "a" * 400
    assert abbreviate("word " * 50 + " " * 7000) == " ".join(["word"] * 24)
    assert abbreviate("退款 多久\n到账？") == "退款 多久 到账？"
    assert abbreviate("退款" * 3000, apart=False) == "退款" * 3000


@given(st.lists(st.text("abc.,?!'ü0", min_size=1, max_size=12), max_size=60))
def test_texts_with_spaces_are_embedded_as_before(words: list[str]) -> None:
    assert abbreviate("  \n".join(words)) == abbreviate(" ".join(words), apart=False)


def test_a_router_whose_predictors_are_not_weighed_is_refused(knowing: Router) -> None:
    kept = msgspec.msgpack.decode(dump(knowing))
    kept["text"][4] = kept["text"][4][:4]
    with pytest.raises(Invalid, match="not weighed"):
        load(msgspec.msgpack.encode(kept))


def older(router: Router) -> Router:
    """As a router of the second format: its trees look at directions of embeddings."""
    if router.full is None or router.meant is None:
        raise AssertionError
    none = np.zeros((0, 0), dtype=np.float32)
    directions = np.eye(16, 3, dtype=np.float32)
    shapes = np.random.default_rng(7).normal(size=(300, SURFACE + 3)).astype(np.float32)
    good = (shapes[:, SURFACE] > 0).astype(float)
    meant = boosted_trees.grow(shapes, np.stack([np.ones(300), good], axis=1), 1)
    text = replace(router.text, blend=(1.0, 0.0, 1.0, 0.0), alone=none, kernel=None)
    full = replace(router.full, blend=(0.0, 1.0, 0.0, 1.0), alone=none, kernel=None)
    return replace(router, text=text, full=full, trees=None, components=directions, meant=meant)


def test_a_router_of_the_format_before_decides_as_it_did(knowing: Router) -> None:
    before = older(knowing)
    kept = msgspec.msgpack.decode(dump(before))
    kept["format"] = 2
    for head in ("text", "full"):
        assert kept[head][5:] == [[], None]
        del kept[head][5:]
    again = load(msgspec.msgpack.encode(kept))
    assert again.full is not None and again.meant is not None and not again.full.alone.size
    vector = placed(entangled(1, 8), 8)[0]
    words = split_words("garden kitten")
    seen = np.concatenate([surface_features("garden kitten", words), (vector - again.centre) @ again.components])
    by_trees = forest.predict_scores(again.meant, seen)
    only = replace(again.full, offset=np.zeros(2, dtype=np.float32))
    told = predict(replace(again, full=only), "garden kitten", vector)
    assert told.scores == pytest.approx(np.clip(by_trees, 0, 1), abs=1e-6)


@pytest.mark.parametrize("alone", [[[0.1, 0.2]] * 3, [[0.1], [0.2]], [[0.1], [0.2, 0.3]], [[float("nan"), 0.1]] * 2])
def test_expectations_of_another_shape_are_refused(knowing: Router, alone: list[list[float]]) -> None:
    kept = msgspec.msgpack.decode(dump(knowing))
    kept["full"][5] = alone
    with pytest.raises(Invalid, match="not a learned router"):
        load(msgspec.msgpack.encode(kept))


def test_regressions_and_trees_are_weighed_by_what_each_is_worth() -> None:
    dice = np.random.default_rng(6)
    truth = dice.random((3000, 2))
    noise = dice.random((3000, 2))
    weights = fit_blend((truth + 0.05 * noise, noise, 1 - truth), truth)
    assert weights[0] > 0.9 and weights[3] > 0.9
    assert max(weights[1], weights[2], weights[4], weights[5]) < 0.1
    assert blend_scores((1.0, 0.0, 1.0, 0.0), (truth[0], noise[0])) == pytest.approx(truth[0])
    assert blend_scores((0.25, 0.75, 0.25, 0.75), (truth, noise)) == pytest.approx(0.25 * truth + 0.75 * noise)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_asking_otherwise_changes_the_text_and_can_be_repeated(kind: str) -> None:
    text = "Which of the following best describes how many animals do not need to sleep, in total?"
    changed = KINDS[kind](text, Random(3))
    assert changed != text
    assert changed == KINDS[kind](text, Random(3))


def test_the_same_choice_is_counted_over_ways_of_asking(router: Router) -> None:
    found = choices_when_rephrased(router, make_matrix(60, seed=8), "0.95", 1)
    assert set(found.again) == set(KINDS)
    assert all(len(found.same(kind)) == 60 for kind in KINDS)
    assert np.mean(found.same("spaces")) > 0.8


def test_the_router_that_is_shipped_is_asked_otherwise_with_embeddings_of_the_changed_prompts(knowing: Router) -> None:
    fresh, asked = entangled(40, 8), list[str]()
    subject = np.eye(16, dtype=np.float32)[0]

    def embed(prompts: Sequence[str], known: int = 40) -> Floats:
        """As it is of prompts as they are; of changed ones it says the other subject."""
        asked.extend(prompts)
        far = np.array([prompt.split()[0] in FAR for prompt in prompts]) != (len(asked) > known)
        return np.asarray(np.where(far[:, None], subject, -subject), dtype=np.float32)

    found = choices_when_rephrased(knowing, fresh, "0.99", 1, embed)
    assert len(asked) == 40 * (1 + len(KINDS)) and len(set(asked)) > 60
    assert found.again["spaces"] != found.first, "what decides is the embedding of what was asked"
    by_words = choices_when_rephrased(knowing, fresh, "0.99", 1)
    assert by_words.again["spaces"] == by_words.first


@pytest.fixture(scope="module")
def evaluated() -> Evaluation:
    return evaluate(make_matrix(400), None, (0.98,))


def test_the_same_choice_stands_beside_what_one_choice_for_all_would_score(evaluated: Evaluation) -> None:
    found = evaluated
    assert 0.5 < found.one_choice < 0.95
    assert set(found.robust_away) == set(KINDS)
    noise = make_matrix(200)
    scores = np.stack([np.ones(200), np.zeros(200)], axis=1)
    never = evaluate(Matrix(noise.samples, noise.models, scores, noise.costs), None, (0.99,))
    assert never.one_choice == 1.0 and never.robust_away == {}
    assert min(never.robust.values()) == 1.0, "which is what a router scores that never routes"


def test_prompts_without_words_are_learned_from_too() -> None:
    samples = tuple(Sample(str(i), str(i), f"{i} + {i % 7} =") for i in range(60))
    scores = np.stack([np.ones(60), np.arange(60) % 2], axis=1).astype(float)
    sums = Matrix(samples, ("large", "small"), scores, np.tile([0.01, 0.001], (60, 1)))
    signs = tuple(replace(sample, prompt=f"{i % 9} + {i % 7}") for i, sample in enumerate(samples))
    assert plain_ridge(replace(sums, samples=signs), sums).tolist() == [[1.0, 0.5]] * 60
    assert evaluate(sums, None, (0.99,)).best == "large"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"{}", b"\x80", None])
def test_other_bytes_are_no_router(data: bytes | None, router: Router) -> None:
    data = dump(router)[:-40] if data is None else data
    with pytest.raises(Invalid, match="not a learned router"):
        load(data)


def test_easy_prompts_go_to_the_small_model_and_hard_ones_do_not(router: Router) -> None:
    both = frozenset(router.models)
    easy = choose(router, "what are your opening hours on n900", None, both, "0.95")
    hard = choose(router, "prove that the sum of n901 odd numbers is even, step by step", None, both, "0.95")
    assert (easy.model, easy.by) == ("small", "learned")
    assert (hard.model, hard.by) == ("large", "learned")
    assert "cheaper" in easy.reason
    assert set(easy.expected) == {"large", "small"}


def test_the_strongest_takes_what_is_strange_unproven_or_below_the_floor(router: Router) -> None:
    both = frozenset(router.models)
    strange = choose(router, "zzq wvx kkj pqr", None, both, "0.95")
    assert (strange.model, strange.by) == ("large", "unsure")
    assert choose(router, "what are your opening hours on n900", None, both, "0.995").by == "strongest"
    easy = choose(router, "what are your opening hours on n900", None, both, "0.95", floor=1.01)
    assert easy.model == "large"


def test_nothing_outside_what_is_allowed_is_taken(router: Router) -> None:
    assert choose(router, "prove it", None, frozenset({"small"}), "0.95").model == "small"
    with pytest.raises(ValueError, match="none"):
        choose(router, "prove it", None, frozenset({"other"}), "0.95")


def test_of_equals_the_cheaper_one_is_taken() -> None:
    assert best_columns(np.array([[0.5, 0.5]]), np.array([[2.0, 1.0]]), 0.0, 1.0).tolist() == [1]


def test_evaluation_saves_where_it_can_and_keeps_the_quality(evaluated: Evaluation) -> None:
    found = evaluated
    ours = found.routed["0.98"]
    assert found.best == "large"
    assert ours.saved > 0.3
    assert ours.kept >= 0.98
    assert found.mixed["0.98"] < ours.saved < found.oracle_saved
    assert found.calibration < 0.05


def test_nothing_is_saved_where_nothing_can_be_told_apart() -> None:
    noise = make_matrix(200)
    scores = np.stack([np.ones(200), np.random.default_rng(1).random(200) < 0.5], axis=1).astype(float)
    found = evaluate(Matrix(noise.samples, noise.models, scores, noise.costs), None, (0.99,))
    assert found.routed["0.99"].kept >= 0.985


def test_of_models_that_cost_nothing_nothing_is_saved() -> None:
    matrix = make_matrix(120)
    free = replace(matrix, costs=matrix.costs * np.array([0.0, 1.0]))
    to_first, to_second = np.zeros(120, dtype=int), np.ones(120, dtype=int)
    assert (held_out_result(free, 0, to_second).saved, held_out_result(free, 0, to_first).saved) == (0.0, 0.0)
    assert held_out_result(free, 1, to_first).saved == 1.0


def test_of_a_model_that_is_never_right_nothing_is_lost() -> None:
    matrix = make_matrix(120)
    never = replace(matrix, scores=matrix.scores * np.array([1.0, 0.0]))
    found = held_out_result(never, 1, np.zeros(120, dtype=int))
    assert (found.kept, found.error) == (1.0, 0.0)
    assert 0.95 < found.low < 1.0, "so many prompts show no more"


def test_rows_of_a_group_count_as_one_where_they_move_together() -> None:
    values = np.repeat(np.array([0.0, 1.0, 0.0, 1.0]), 25)
    together = error_of_mean(values, np.repeat(np.arange(4), 25))
    apart = error_of_mean(values, np.arange(100))
    assert together > 4 * apart
    assert error_of_mean(values, np.zeros(100, dtype=np.int64)) == np.inf


def test_the_share_for_half_the_gap() -> None:
    weak, strong = np.array([0.0, 0, 1, 1]), np.array([1.0, 1, 1, 1])
    assert strong_share(weak, strong, strong - weak) == 0.25
    assert strong_share(weak, strong, weak - strong) == 0.75
