"""Copies: proposals by sketches, and the close look, against slow and obvious references."""

from __future__ import annotations

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.knowledge.parsing.prepare import shingles, sketch, words_of
from groundplan.knowledge.quality import duplicates
from groundplan.knowledge.quality.duplicates import common_length, identical_groups, near_duplicates, text_similarity
from groundplan.testing.documents import edit_words, generate_documents, rewrite_lines

_words = st.lists(st.sampled_from("abcd"), max_size=14)


@given(_words, _words)
def test_the_common_subsequence_is_the_longest(one: list[str], other: list[str]) -> None:
    best = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            best[i + 1][j + 1] = best[i][j] + 1 if a == b else max(best[i][j + 1], best[i + 1][j])
    assert common_length(one, other) == best[-1][-1]


def test_edits_are_found_and_what_was_rewritten_is_not() -> None:
    dice = random.Random(3)
    originals = [made.body for made in generate_documents(40, seed=3)]
    copies = [edit_words(text, share, dice) for text, share in zip(originals, [0.02, 0.1, 0.2] * 5, strict=False)]
    others = [rewrite_lines(text, 0.8, dice) for text in originals[20:30]]
    texts = originals + copies + others
    found = near_duplicates([sketch(words_of(text)) for text in texts], lambda places: {at: texts[at] for at in places})
    assert [(pair.one, pair.other) for pair in found] == [(at, 40 + at) for at in range(15)]
    assert all(pair.similarity < 1 for pair in found)


def test_parts_in_another_order_are_a_copy_too() -> None:
    text = next(iter(generate_documents(1, seed=4))).body
    parts = text.split("\n\n")
    moved = "\n\n".join(parts[len(parts) // 2 :] + parts[: len(parts) // 2])
    one, other = words_of(text), words_of(moved)
    pairs, others = shingles(one), shingles(other)
    assert text_similarity(one, other, len(pairs & others) / len(pairs | others)) >= 0.75
    assert (
        len(near_duplicates([sketch(one), sketch(other)], lambda places: {at: [text, moved][at] for at in places})) == 1
    )


_RULE = """従業員が年次有給休暇を取得しようとするときは、原則として三日前までに所属長へ申し出なければならない。
ただし、やむを得ない事情がある場合には、事後に速やかに届け出ることでこれに代えることができる。会社は、事業の正常な運営を妨げる
場合に限り、休暇の時季を変更することがある。休暇は半日単位で取得することができ、翌年度に限り繰り越すことができる。
休暇の期間中に病気となったときは、医師の診断書を添えて申し出ることにより、病気休暇に振り替えることができるものとする。"""


def test_edits_are_found_in_scripts_without_spaces() -> None:
    dice = random.Random(5)
    plain = [letter for letter in _RULE if letter != "\n"]
    changed = [dice.choice("課長部員時間規則") if dice.random() < 0.12 else letter for letter in plain]
    other = dice.sample(plain, len(plain))
    texts = [_RULE, "".join(changed), "".join(other), unicodedata.normalize("NFD", _RULE)]
    found = near_duplicates([sketch(words_of(text)) for text in texts], lambda places: {at: texts[at] for at in places})
    assert {(pair.one, pair.other) for pair in found} == {(0, 1), (0, 3), (1, 3)}
    assert words_of(texts[0]) == words_of(texts[3]), "however it is encoded"


def test_of_long_documents_the_beginnings_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_WORDS", 60)
    begins, tails = [f"word{at}" for at in range(60)], (["a b"] * 80, ["c d"] * 80)
    texts = [" ".join(begins + tail) for tail in tails]
    (pair,) = near_duplicates(
        [sketch(words_of(text)) for text in texts], lambda places: {at: texts[at] for at in places}
    )
    assert pair.similarity == 1


def test_exact_copies_are_grouped_and_empty_documents_are_not() -> None:
    assert list(identical_groups([("a", "1"), ("b", "2"), ("c", "1"), ("d", None), ("e", None), ("f", "")])) == [
        ["a", "c"]
    ]


def test_the_same_seed_makes_the_same_documents() -> None:
    assert list(generate_documents(3, seed=9)) == list(generate_documents(3, seed=9))
    assert list(generate_documents(3, seed=9)) != list(generate_documents(3, seed=10))
