"""What an answer cites, and whether the passage says it: sentences, marks, numbers, negations, notes of a prompt."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.cli.ask import answer_text
from groundplan.gateway.call.ask import Passage
from groundplan.gateway.call.ground import _passage_block
from groundplan.gateway.call.grounding.citation_check import check_citations
from groundplan.gateway.call.grounding.notes import GroundingNotes, notes
from groundplan.knowledge.citations.marks import sentences, statements
from groundplan.knowledge.citations.support import (
    WordMatch,
    content_words,
    decide,
    match_words,
    places_of,
    prepare_passage,
)
from groundplan.knowledge.retrieval.wire import Conflict, Newer

LEAVE = (
    "Employees have 25 days of paid leave in a calendar year. Up to five days may be carried over. Notice is 30 days."
)


def passage(text: str = LEAVE, end_char: int = 100 + len(LEAVE)) -> Passage:
    return Passage(
        document="d1", path="handbook/leave.md", title="Leave", source="handbook", start_line=3, end_line=5, text=text,
        version=4, start_char=100, end_char=end_char,
    )  # fmt: skip


def match_statement(statement: str, passage: str, head: str = "") -> WordMatch:
    return match_words(statement, prepare_passage(passage, head))


def test_marks_belong_to_the_words_before_them() -> None:
    told = statements(
        "Leave is 25 days [1]. Nothing here. Trips need a receipt, e.g. taxis. [2, 3] First class [2][4] is rare."
    )
    assert [(one.text, one.passages) for one in told] == [
        ("Leave is 25 days.", (1,)),
        ("Trips need a receipt, e.g. taxis.", (2, 3)),
        ("First class is rare.", (2, 4)),
    ]


def test_two_marks_in_a_sentence_answer_for_their_own_words() -> None:
    told = statements("Leave is 25 days [1] and notice is 30 days [2].")
    assert [(one.text, one.passages) for one in told] == [("Leave is 25 days", (1,)), ("and notice is 30 days.", (2,))]


def test_what_introduces_a_sentence_cites_for_it() -> None:
    answer = "According to the passage [1]: Leave is 25 days. It is paid. Based on [2]:\nNotice is 30 days."
    told = statements(answer)
    assert [(one.text, one.passages) for one in told] == [("Leave is 25 days.", (1,)), ("Notice is 30 days.", (2,))]
    assert answer[told[0].start : told[0].end] == "According to the passage [1]: Leave is 25 days."
    (citation,) = check_citations("According to the passage [1]: Employees have 25 days of paid leave.", [passage()])
    assert citation.supported is True
    (wrong,) = check_citations("According to the passage [1]: Employees have 30 days of paid leave.", [passage()])
    assert wrong.supported is False
    for alone in ("According to the passage [1]:", "From [1]: Leave [2] is paid."):
        assert statements(alone)[0].passages == (1,)
    assert [one.text for one in statements("Leave is 25 days [1]: ask early.")] == ["Leave is 25 days:"]


@given(st.text(alphabet="aB1 .!?[],\n2", max_size=80) | st.from_regex(r"(From \[1\]:|a\.| |\n){0,9}", fullmatch=True))
def test_spans_are_of_the_answer_and_in_order(answer: str) -> None:
    found = statements(answer)
    ends = [0]
    for one in found:
        assert answer[one.start : one.end].strip() == answer[one.start : one.end]
        assert ends[-1] <= one.start < one.end <= len(answer)
        assert one.passages
        ends.append(one.end)
    covered = " ".join(answer[start:end] for start, end in sentences(answer))
    assert covered.split() == answer.split()


def test_a_mark_that_nothing_was_said_before_ends_its_statement_without_the_space_after_it() -> None:
    answer = "a[1][[2] ][1]a"
    first, second = statements(answer)
    assert (answer[first.start : first.end], first.passages) == ("a[1][[2]", (1, 2))
    assert answer[second.start : second.end] == "][1]a"


@pytest.mark.parametrize("run", [".", " ", "\n", "?!", ".\"'", "[1,", "[1] ", "...a", "。", "\u00a0"])
def test_no_answer_holds_up_other_calls(run: str) -> None:
    """It is looked at in the worker that serves them; a run of full stops took it half a minute."""
    begun = time.process_time()
    for answer in (f"{run * 20_000}x [1].", f"a [1]{run * 20_000}x.", f"a{run * 20_000}[1]"):
        statements(answer)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("Employees have 25 days of paid leave.", True),
        ("Employees have twenty-five days of paid leave.", None),
        ("Employees have 30 days of paid leave.", False),
        ("Employees have no paid leave in a calendar year.", False),
        ("Up to 5 days may be carried over.", True),
        ("Notice is 30 days.", True),
        ("The canteen opens at noon.", None),
    ],
)
def test_words_decide_what_they_can(statement: str, says: bool | None) -> None:
    seen = match_statement(statement, LEAVE)
    assert seen.decided is says or (says is None and seen.decided is not True)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("A pump costs 1,500 EUR.", "A pump costs 1\u202f500 EUR with freight."),
        ("A pump costs 1500 EUR.", "A pump costs 1’500.00 EUR with freight."),
        ("A pump costs 30 EUR.", "A pump costs 30.00 EUR with freight."),
        ("A pump costs 1.500,50 EUR.", "A pump costs 1\u00a0500,50 EUR with freight."),
    ],
)
def test_a_number_is_the_same_however_it_is_set(statement: str, said: str) -> None:
    assert match_statement(statement, said).decided is True
    assert match_statement(statement.replace("5", "6").replace("3", "4"), said).decided is False


@pytest.mark.parametrize(
    ("statement", "denied"),
    [
        ("Taxis werden in der Stadt erstattet.", "Taxis werden in der Stadt nicht erstattet, nur Züge."),
        ("Les taxis en ville sont remboursés.", "Les taxis en ville ne sont pas remboursés, seuls les trains."),
        ("Los taxis en la ciudad se pagan.", "Los taxis en la ciudad nunca se pagan, solo los trenes."),
        ("I taxi in città sono rimborsati.", "I taxi in città non sono rimborsati, solo i treni."),
        ("Os táxis na cidade são pagos.", "Os táxis na cidade não são pagos, só os comboios."),
        ("Taxi's in de stad worden vergoed.", "Taxi's in de stad worden niet vergoed, alleen treinen."),
        ("Taksówki w mieście są zwracane.", "Taksówki w mieście nigdy są zwracane, tylko pociągi."),
    ],
)
def test_what_is_denied_in_other_languages_is_not_said(statement: str, denied: str) -> None:
    assert match_statement(statement, denied).decided is False
    assert match_statement(denied, denied.replace(",", " ,")).decided is True
    assert match_statement(statement, statement[:-1] + " und mehr.").decided is True


def test_what_is_quoted_word_for_word_is_said() -> None:
    for file in sorted((Path(__file__).parents[2] / "examples" / "company").rglob("*.md")):
        text = file.read_text()
        for place in places_of(text):
            seen = match_statement(" ".join(place.text.split()), text)
            assert seen.decided is not False, (file.name, place.text)


def test_a_part_of_a_sentence_is_taken_only_where_it_says_as_much() -> None:
    hours = "Offices have flexible hours between 7 and 19; meetings are placed between 9 and 15."
    assert match_statement("Our offices have flexible hours between 7 and 19.", hours).decided is not False
    assert match_statement("Our offices have flexible hours between 7 and 20.", hours).decided is False


def test_a_number_of_another_sentence_proves_nothing() -> None:
    assert match_statement("Paid leave is 30 days in a calendar year.", LEAVE).decided is False


def test_what_is_denied_in_another_part_of_a_sentence_is_not_meant() -> None:
    said = "Passwords have at least 14 characters and are not changed at fixed times."
    assert match_statement("Passwords have at least 14 characters.", said).decided is True
    assert match_statement("Passwords do not have at least 14 characters.", said).decided is False


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("Stop the pump after you open the filter.", "Stop the pump before you open the filter."),
        ("Amounts below 20 EUR need a receipt.", "Amounts above 20 EUR need a receipt."),
        ("Laptops must never be replaced every four years.", "Laptops are replaced every four years."),
    ],
)
def test_opposites_speak_against_it(statement: str, said: str) -> None:
    assert match_statement(said, said).decided is True
    assert match_statement(statement, said).decided is False


def test_places_are_sentences_and_pairs_of_them() -> None:
    found = places_of(LEAVE)
    assert [LEAVE[one.start : one.end].strip() for one in found] == [one.text for one in found]
    assert len(found) == 3 + 2
    assert places_of("") == []


def test_meaning_and_words_are_added() -> None:
    assert decide(0.5, 0.9) and not decide(0.1, 0.2)


def test_a_citation_names_document_version_and_characters() -> None:
    (one,) = check_citations("Up to five days may be carried over [1].", [passage()])
    told = one.as_json()
    assert told["supported"] is True
    assert (told["document"], told["version"], told["passage"]) == ("d1", 4, 1)
    assert LEAVE[told["start_char"] - 100 : told["end_char"] - 100].strip() == "Up to five days may be carried over."
    assert (told["start"], told["end"]) == (0, 40)


def test_a_passage_that_was_changed_is_named_as_a_whole() -> None:
    (one,) = check_citations("Up to five days may be carried over [1].", [passage(end_char=4000)])
    assert one.span() == (100, 4000)


def test_a_number_without_a_passage_supports_nothing() -> None:
    (one,) = check_citations("Leave is 25 days [3].", [passage()])
    assert one.supported is False and one.as_json()["document"] is None


def _conflict(says: str = "Leave is 25 days.", other: str = "Leave is 30 days.") -> Conflict:
    return Conflict(
        document="d1", path="leave.md", title="Leave", source="handbook", says=says, other_document="d2",
        other_path="old/leave.md", other_title="Leave", other_source="archive", other_says=other,
    )  # fmt: skip


NEWER = Newer(
    document="d3", path="t-2021.md", title="T", newer_document="d4", newer_path="t-2024.md", newer_title="T",
    newer_source="handbook",
)  # fmt: skip


def test_the_model_is_told_of_both_sources() -> None:
    told = notes(GroundingNotes([_conflict()], [NEWER]), [passage()], 2000)
    assert "[1] leave.md says 'Leave is 25 days.', old/leave.md says 'Leave is 30 days.'" in told
    assert "t-2021.md was not used: a newer version exists, t-2024.md." in told
    assert (
        b'"conflicts":' in GroundingNotes([_conflict()], []).json_members()
        and GroundingNotes([], []).json_members() == b""
    )


@given(st.integers(0, 2000), st.text(max_size=400))
def test_notes_fit_and_cannot_end_their_quotes(size: int, says: str) -> None:
    told = notes(GroundingNotes([_conflict(says)] * 3, [NEWER]), [passage()], size)
    assert len(told.encode()) <= size
    assert told.count("'") % 4 == 0


def test_the_command_line_says_what_is_doubtful() -> None:
    told = {
        "choices": [{"message": {"content": "Leave is 30 days [1]. Ask HR."}}],
        "groundplan": {
            "citations": [
                {"passage": 1, "start": 0, "end": 21, "supported": False},
                {"passage": 1, "start": 22, "end": 29, "supported": None},
            ],
            "conflicts": [msgspec.to_builtins(_conflict())],
            "newer": [msgspec.to_builtins(NEWER)],
        },
    }
    text = answer_text(told)
    assert "[1] does not support: Leave is 30 days [1]." in text and text.count("does not support") == 1
    assert "leave.md says 'Leave is 25 days.', old/leave.md 'Leave is 30 days.'" in text
    assert "t-2021.md was not used: t-2024.md is newer" in text


def test_a_worker_speaks_with_search_without_numpy() -> None:
    code = "import sys, groundplan.gateway.app as app; raise SystemExit('numpy' in sys.modules or app is None)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_newer_version_that_holds_no_more_is_told_as_such() -> None:
    expired = msgspec.structs.replace(NEWER, reason="expired")
    told = notes(GroundingNotes([], [expired]), [passage()], 2000)
    assert "a newer version exists, t-2024.md, which is not valid any more and was not used either." in told
    answer = {"choices": [{"message": {"content": "No."}}], "groundplan": {"newer": [msgspec.to_builtins(expired)]}}
    assert "t-2024.md is newer, which is not valid any more" in answer_text(answer)


def test_the_head_of_a_table_speaks_for_its_rows_and_reaches_the_model() -> None:
    row, head = "| P7 | 12 |", "| pump | pressure in 2025 |"
    said = "The pressure of P7 in 2025 was 12."
    assert match_statement(said, row).decided is False, "no year stands in the row"
    with_head = match_statement(said, row, head)
    assert with_head.decided is not False and with_head.share > match_statement(said, row).share
    assert match_statement("The pressure of P7 in 2025 was 19.", row, head).decided is False
    given = msgspec.structs.replace(passage(row), head=head)
    assert _passage_block(1, given).endswith(f"\n{head}\n{row}\n")
    assert _passage_block(1, passage(row)).endswith(f")\n{row}\n")


@pytest.mark.parametrize(
    ("answer", "cited"),
    [
        ("年休は25日です[1]。残業は45時間です[2]。", [("年休は25日です。", (1,)), ("残業は45時間です。", (2,))]),
        ("年休は25日です。[1]残業は別です。部長に。[2]", [("年休は25日です。", (1,)), ("部長に。", (2,))]),
        ("क्या छुट्टी है। हाँ, 25 दिन। [1]", [("हाँ, 25 दिन।", (1,))]),
    ],
)  # fmt: skip
def test_sentences_end_in_every_script(answer: str, cited: list[tuple[str, tuple[int, ...]]]) -> None:
    assert [(one.text, one.passages) for one in statements(answer)] == cited


@pytest.mark.parametrize(
    ("statement", "passage", "decided"),
    [
        ("年次有給休暇は25日です。", "年次有給休暇は25日です。病気休暇は別に定めます。", True),
        ("年次有給休暇は３０日です", "年次有給休暇は25日です。", False),
        ("正社員の年次有給休暇は毎年30日", "正社員には年次有給休暇を毎年25日与える。", False),
        ("带薪年假可以结转到下一年", "带薪年假不可以结转到下一年。", False),
        ("연차 휴가는 30일입니다", "연차 휴가는 25일입니다.", False),
        ("วันลาพักร้อนมี 30 วันต่อปี", "วันลาพักร้อนมี 25 วันต่อปี", False),
        ("出張費は後払いです", "年次有給休暇は25日です。", None),
        ("年次有給休暇は毎年25日与えられる", "正社員の年次有給休暇は毎年25日与えられるものとする。", True),
    ],
)
def test_words_decide_in_scripts_without_spaces(statement: str, passage: str, decided: bool | None) -> None:
    assert match_statement(statement, passage).decided is decided


def test_what_a_text_is_about_is_told_in_every_script() -> None:
    assert content_words("What is the 年休 of 2026?") == ["年休"]
    assert content_words("育児休業は何日?") == ["育児", "児休", "休業", "業は", "は何", "何日"]
