"""What the benchmark of the semantic cache tells: bounds by intent, traps by kind, and a generator of its own."""

from __future__ import annotations

import gzip
import json
import sys
from math import inf
from pathlib import Path
from random import Random

import numpy as np
import pytest
from benchmarks import semantic_apart, semantic_cache, semantic_pairs, semantic_put, semantic_tune
from benchmarks.semantic_cache import (
    have_evidence,
    is_comparable,
    pair_intents,
    pairs_of_rows,
    rates,
    served_as_shipped,
    trap_counts,
)
from benchmarks.semantic_families import generate_family
from benchmarks.semantic_labelled import Pair
from benchmarks.semantic_plain import generate_pairs as generate_plain_pairs
from benchmarks.semantic_public import content_words, insert_word, removes_negation_difference, replace_within_sort
from benchmarks.semantic_tune import share_upper_bound

from groundplan.economics.semantic import equivalence, guards
from groundplan.economics.semantic.equivalence import Verdict
from groundplan.economics.semantic.reading import read


def test_hits_of_one_intent_count_once_for_the_bound() -> None:
    hits = np.array([True] * 100)
    figures = rates(hits, hits, [f"intent {n % 10}" for n in range(100)])
    assert (figures["wrong_rate"], figures["intents_hit"]) == (0.0, 10)
    assert figures["wrong_upper_independent"] == round(share_upper_bound(0, 100), 5)
    assert figures["wrong_upper"] == round(share_upper_bound(0, 10), 5) > 0.25
    same = np.array([n != 5 for n in range(100)])
    assert rates(hits, same, [f"intent {n % 10}" for n in range(100)])["wrong_upper"] == round(
        share_upper_bound(1, 10), 5
    )


def test_pairs_of_a_file_belong_together_by_their_group_or_by_a_text() -> None:
    pairs = [Pair("a", "b", True), Pair("c", "b", False), Pair("d", "e", True), Pair("x", "y", True, "", "g"),
             Pair("z", "a", False, "", "g")]  # fmt: skip
    found = pair_intents(pairs)
    assert found[0] == found[1] != found[2]
    assert found[3:] == ["g", "g"]


def test_evidence_of_a_kind_comes_of_other_intents_and_wrong_ones_end_it() -> None:
    """Ten intents in five parts; `new` is right in all of them, `own` in one, `false` is wrong in the last two."""
    verdicts = [Verdict(1.0, kinds=frozenset({kind})) for _ in range(10) for kind in ("known", "new", "false")]
    same = np.array([kind != "false" or intent < 8 for intent in range(10) for kind in ("known", "new", "false")])
    intents = [f"intent {number}" for number in range(10) for _ in range(3)]
    verdicts += [Verdict(1.0, kinds=frozenset({"own"})), Verdict(-inf, "number", frozenset({"known"}))]
    same = np.append(same, [True, False])
    verdicts.append(Verdict(-3.0, kinds=frozenset({"known"})))
    same, sure = np.append(same, False), np.array([found.score >= 0.0 for found in verdicts])
    proven = have_evidence(verdicts, sure, same, [*intents, "intent 0", "intent 1", "intent 2"], frozenset({"known"}))
    assert proven[0:30:3].all() and proven[1:30:3].all(), "what a guard refused, or scores too low, shows nothing"
    assert not proven[2:30:3].any(), "it is off in every part, since two parts show it wrong"
    assert not proven[30], "an intent is no evidence for itself"


def test_a_trap_of_no_kind_is_named_by_the_guard_that_refused_it() -> None:
    pairs = [Pair("a", "b", False), Pair("a", "c", False), Pair("a", "d", False, "date"), Pair("a", "e", True)]
    verdicts = [Verdict(-inf, "number"), Verdict(5.0), Verdict(-inf, "time"), Verdict(9.0)]
    assert trap_counts(pairs, verdicts, np.array([False, True, False, True])) == {
        "date": {"traps": 1, "wrong": 0},
        "no guard": {"traps": 1, "wrong": 1},
        "number": {"traps": 1, "wrong": 0},
    }


def test_the_wide_family_has_enough_intents_for_one_percent_and_traps_of_every_kind() -> None:
    rows = generate_family("wide", 901)
    pairs = pairs_of_rows("wide", rows)
    intents = {pair.group for pair in pairs if pair.same}
    assert len(intents) == 416 and share_upper_bound(0, len(intents)) < 0.01
    kinds = {"word", "hidden name", "negation", "number", "date", "entity", "unit", "opposite", "direction", "language"}
    assert kinds <= {pair.kind for pair in pairs if not pair.same}
    assert all(pair.a.lower() != pair.b.lower() for pair in pairs)
    assert rows == generate_family("wide", 901) != generate_family("wide", 902)


def test_no_repeat_of_the_wide_family_is_a_trap() -> None:
    rows = generate_family("wide", 903)
    repeats = {(row["a"], row["b"]) for row in rows if row["same"]}
    assert not repeats & {(row["a"], row["b"]) for row in rows if not row["same"]}


def test_a_paraphrase_that_denies_once_too_often_makes_no_trap_when_that_is_taken_away() -> None:
    origin, similar = (
        "If files are not here, they won’t be added.",
        "If files are not not here, they will not be added.",
    )
    assert removes_negation_difference(origin, similar, "If files are not here, they will not be added.")
    assert not removes_negation_difference(origin, similar, "If files are here, they will not be added.")
    assert not removes_negation_difference(origin, origin, "If files are here, they won’t be added.")


def test_a_word_that_denies_is_no_thing_that_another_could_replace() -> None:
    assert content_words(read("The page doesn't exist without a name")) == ["page", "exist", "name"]


def test_a_paraphrase_gets_any_word_that_neither_text_has() -> None:
    row = {"origin": "The page lists names", "similar": "Names are listed on the Page and the page"}
    for seed in range(20):
        found = insert_word(row, ["page"], ["names", "listed", "garden", "cost"], Random(seed))
        assert found in [f"Names are listed on the Page and the {word} page" for word in ("garden", "cost")]
    assert insert_word(row, ["garden"], ["cost"], Random(0)) is None


def test_a_thing_becomes_another_one_of_its_sort_wherever_it_stands() -> None:
    text = "Files are kept in a folder, and files are read again"
    found = {replace_within_sort(text, ["folder", "kept"], Random(seed)) for seed in range(9)}
    assert found == {"Files are kept in a file, and files are read again"}
    assert replace_within_sort("two files, more files", ["files"], Random(1)) == "two folders, more folders"
    assert replace_within_sort(text, ["kept", "read again"], Random(1)) is None


def test_pairs_that_settings_come_from_have_qualifiers_that_no_other_family_has() -> None:
    rows = list(semantic_pairs.generate_qualified("tune", 3))
    assert len(rows) > 60 and all(not row["same"] and row["kind"] == "added" for row in rows)
    used = {word for row in rows for word in row["b"].split() if word in semantic_pairs.TRAINING_QUALIFIERS}
    assert used and used.isdisjoint((*semantic_pairs.QUALIFIERS, *semantic_apart.AHEAD))


def test_what_the_gateway_would_not_compare_is_a_miss() -> None:
    assert is_comparable(Pair("a" * 2000, "b", True)) and not is_comparable(Pair("a", "b" * 2001, True))


@pytest.mark.parametrize(
    "data", [None, b"no gzip", gzip.compress(b'[{"origin": 3}]', mtime=0), gzip.compress(b"x" * 999, mtime=0)[:30]],
    ids=["missing", "no gzip", "another shape", "cut off"],
)  # fmt: skip
def test_a_file_of_another_shape_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: bytes | None
) -> None:
    path = tmp_path / "given.json.gz"
    if data is not None:
        path.write_bytes(data)
    for option in ("--public", "--tune"):
        monkeypatch.setattr(sys, "argv", ["semantic_cache", option, str(path)])
        assert semantic_cache.main() != 0
        assert capsys.readouterr().err.startswith(f"semantic_cache: {path} cannot be read")


@pytest.mark.parametrize("bound", ["0", "-1", "7", "nan"])
def test_a_bound_that_is_no_share_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["semantic_cache", "pairs.jsonl", f"--bound={bound}"])
    with pytest.raises(SystemExit):
        semantic_cache.main()
    assert "a share between 0 and 1" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["apart", "later"])
def test_families_apart_share_no_word_that_makes_another_thing_and_have_kinds_of_traps_of_their_own(
    family: str,
) -> None:
    rows = generate_family(family, 911)
    pairs = pairs_of_rows(family, rows)
    assert len({pair.group for pair in pairs if pair.same}) == 420
    kinds = {"word", "added", "behind", "manner", "head", "owner", "hidden name", "date", "number", "unit", "opposite",
             "negation", "intent"}  # fmt: skip
    assert kinds == {pair.kind for pair in pairs if not pair.same} - {"language"}
    repeats = {(pair.a, pair.b) for pair in pairs if pair.same}
    assert not repeats & {(pair.a, pair.b) for pair in pairs if not pair.same}
    assert rows == generate_family(family, 911) != generate_family(family, 912)
    words, other = semantic_apart.FAMILIES[family], semantic_apart.FAMILIES[{"apart": "later"}.get(family, "apart")]
    known = {*semantic_pairs.QUALIFIERS, *semantic_pairs.TRAINING_QUALIFIERS, *other.ahead}
    assert known.isdisjoint(words.ahead)
    assert set(words.things).isdisjoint((*semantic_pairs.OBJECTS, *other.things))


@pytest.mark.parametrize("family", ["open", "all", "sealed", "unseen"])
def test_questions_that_are_put_otherwise_have_traps_of_each_kind_in_three_lengths(family: str) -> None:
    rows = generate_family(family, 921)
    pairs = pairs_of_rows(family, rows)
    assert len({pair.group for pair in pairs if pair.same}) > 384
    assert {pair.kind for pair in pairs if not pair.same} == set(semantic_put.FAMILIES[family][1])
    repeats = {(pair.a, pair.b) for pair in pairs if pair.same}
    assert not repeats & {(pair.a, pair.b) for pair in pairs if not pair.same}
    figures = [pair.a.count(". ") for pair in pairs if pair.same]
    assert all(figures.count(sentences) * 4 > len(figures) for sentences in range(3))
    assert rows == generate_family(family, 921) != generate_family(family, 922)


def test_what_is_sealed_shares_no_field_thing_or_kind_with_what_is_open() -> None:
    families = [semantic_put.FAMILIES[family][0] for family in ("open", "sealed", "unseen")]
    things = [{act.thing for field in fields.values() for act in semantic_put.parse_acts(field)} for fields in families]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert len(families[one]) == len(families[other]) == 4
        assert set(families[one]).isdisjoint(families[other]) and things[one].isdisjoint(things[other])
    assert len(semantic_put.SEALED_KINDS) == 14 and set(semantic_put.OPEN_KINDS).isdisjoint(semantic_put.SEALED_KINDS)


@pytest.mark.parametrize(("name", "repeats"), [("desk", 60), ("journeys", 1400), ("letters", 150)])
def test_plain_sets_have_no_intents_and_no_repeat_that_is_a_trap(name: str, repeats: int) -> None:
    rows = list(generate_plain_pairs(name, 931))
    assert all(set(row) == {"a", "b", "same", "kind"} for row in rows)
    same = {(row["a"], row["b"]) for row in rows if row["same"]}
    assert sum(row["same"] for row in rows) >= repeats
    assert not same & {(row["a"], row["b"]) for row in rows if not row["same"]}
    assert {"number", "entity", "time"} <= {row["kind"] for row in rows if not row["same"]}


@pytest.fixture(scope="module")
def some() -> list[Pair]:
    return semantic_cache.sample_pairs()


def test_settings_that_ship_are_of_the_rule_that_ships(some: list[Pair]) -> None:
    """Else what they come of was accepted and refused by another one: `semantic_cache.py --tune` learns them anew."""
    acceptance = equivalence.load_acceptance()
    assert acceptance.version == semantic_tune.VERSION and acceptance.rule == semantic_tune.rule_digest(some)
    assert set(acceptance.evidence) == set(acceptance.thresholds) == {f"{bound:g}" for bound in semantic_tune.BOUNDS}
    for bound, (accepted, wrong) in acceptance.evidence.items():
        assert accepted > 1000 and equivalence.is_within_bound(wrong, accepted, float(bound) / semantic_tune.CAUTION)


def test_another_rule_is_told_from_the_one_that_ships(some: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pairs tell it; what some of them tell, all do."""
    assert len(some) > 300 and {pair.same for pair in some} == {True, False}
    few = some[::8]
    figures = semantic_tune.rule_digest(few)
    assert figures == semantic_tune.rule_digest(list(few)) != semantic_tune.rule_digest(few[1:])
    monkeypatch.setattr(guards, "_GUARDS", guards._GUARDS[2:])
    assert semantic_tune.rule_digest(few) != figures


def test_what_is_given_on_the_first_day_needs_a_score_no_guard_and_evidence_that_ships() -> None:
    new = frozenset({"new"})
    verdicts = [Verdict(5.0), Verdict(0.5), Verdict(5.0, "focus", new, new), Verdict(5.0, "", new, new), Verdict(-inf)]
    assert served_as_shipped(verdicts, 1.0).tolist() == [True, False, False, False, False]


def test_a_trap_of_who_does_what_turns_both_about() -> None:
    rows = [row for row in semantic_put.generate_pairs("open", 923, 1) if row["kind"] == "roles"]
    assert rows
    for row in rows:
        one, other = row["intent"].rsplit(" ", 2)[1:]
        figures, turned = (row["a"].index(one) < row["a"].index(other)), (row["b"].index(one) < row["b"].index(other))
        # in one of them the passive may turn the order as well
        assert figures != turned or (" by " in row["a"]) != (" by " in row["b"])


def test_any_pairs_of_texts_are_measured_and_a_broken_line_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = ["", " ", "???", "\x00", "\N{PARTY POPPER}" * 9, "Wie zahle ich?", "a" * 5000, "word " * 399, "`x` " * 90,
           "How do I pay?\r\nAnd when?", "hi, will you tell me if"]  # fmt: skip
    path = tmp_path / "odd.jsonl"
    lines = [json.dumps({"a": a, "b": b, "same": a == b}) for a in odd for b in odd]
    path.write_text("\n\n".join(lines) + "\r\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["semantic_cache", str(path), "--json"])
    assert semantic_cache.main() == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["pairs"] == len(odd) ** 2 and figures["wrong"] == 0 < figures["hit_rate"] and "wrong_rate" in figures
    path.write_text(lines[0] + '\n{"a": "x", "b":\n"y", "same": true}\n', encoding="utf-8")
    assert semantic_cache.main() != 0
    assert f"{path}:2" in capsys.readouterr().err
