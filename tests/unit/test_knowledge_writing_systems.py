"""Scripts without spaces between words: pairs of characters, the same however a text is encoded."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.knowledge.retrieval.synonyms import Synonyms
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.knowledge.writing_systems import RUN, bigrams, is_unspaced, space_out, split_scripts, split_unspaced


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("北京，天气。", ["北京", "天气"]),
        ("Python3で書く第3章", ["python3", "で書", "書く", "く第", "3", "章"]),
        ("ｱｶﾞﾘ ＡＢＣ", ["アガ", "ガリ", "abc"]),
        ("⽇本", ["日本"]),
        ("น้ำมัน", ["น้ำ", "ำมั", "มัน"]),
        ("서울에서 회의", ["서울", "울에", "에서", "회의"]),
        ("猫", ["猫"]),
        ("𠮷野家", ["𠮷野", "野家"]),
        ("Mu\u0308nchen Größe ﬁnden Acme™", ["munchen", "gross", "finden", "acm"]),
        ("一" * 100, ["一一"] * 99),
    ],
)
def test_words_are_told_apart_in_every_script(text: str, terms: Sequence[str]) -> None:
    analyzer = Analyzer()
    assert analyzer.terms(text) == terms
    assert analyzer.terms(unicodedata.normalize("NFD", text)) == terms, "however it is encoded"


def test_the_words_that_were_found_are_told_as_they_were_asked() -> None:
    shared = Analyzer().shared_words
    assert shared("VPNの設定は?", "VPNの設定は部長に聞いてください。") == ["VPN", "の設", "設定", "定は"]
    assert shared("Größe 年假", "GRÖSSE 年假") == ["Größe", "年假"]
    assert shared("年假", "年 假") == []


def test_synonyms_are_found_inside_of_a_run() -> None:
    analyzer = Analyzer()
    known = Synonyms([["年假", "PTO"]], analyzer.terms)
    assert known.variants(analyzer.terms("带薪年假")) == [analyzer.terms("带薪 薪年 PTO")]


@given(st.text(st.sampled_from("年假天キーวันั้ี่한글 a1.々・"), max_size=30))
def test_nothing_of_a_run_is_lost(text: str) -> None:
    for run in RUN.findall(text):
        made = bigrams(run)
        letters = [one for one in run if one.isalnum()]
        assert all(letter in "".join(made) for letter in letters)
        assert len(made) == max(1, len(letters) - 1 + (not run[0].isalnum() and bool(letters)))


@given(st.text(st.sampled_from("年假天キーวันั้ี่한글 a1.々・é"), max_size=30))
def test_a_text_is_taken_apart_and_nothing_is_left_out(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert "".join(part for part, _ in split_scripts(text)) == composed
    spaced, runs = split_unspaced(text)
    assert runs == [part for part, has_none in split_scripts(text) if has_none]
    assert RUN.search(spaced) is None
    assert "".join(space_out(text).split()) == "".join(composed.split())


def test_characters_are_words_where_there_are_no_spaces() -> None:
    assert space_out("第3章 Python").split() == ["第", "3", "章", "Python"]
    assert space_out("น้ำมัน").split() == ["น้", "ำ", "มั", "น"]
    assert space_out("plain text") == "plain text"
    assert is_unspaced(["年", "假", "pto"]) and not is_unspaced(["年", "a", "b"]) and not is_unspaced([])
