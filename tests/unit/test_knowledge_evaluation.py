"""Labelled folders are read or refused by file and line; figures are those of the definitions; runs are compared."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.api.knowledge import labelled_questions
from groundplan.core.errors import Invalid
from groundplan.knowledge.evaluation import draft, plot
from groundplan.knowledge.evaluation.beir import read_corpus
from groundplan.knowledge.evaluation.history import record_run
from groundplan.knowledge.evaluation.labelled import QuestionResult, Span, summarise
from groundplan.knowledge.evaluation.measure import NAMES, confidence_interval, measure
from groundplan.knowledge.retrieval.search import MAX_PASSAGES
from groundplan.knowledge.retrieval.wire import Passage, Place

CORPUS = '{"_id": "1", "title": "T", "text": "a"}\n'
QUERIES = '{"_id": "q", "text": "what"}\n{"_id": "r", "text": "not judged"}\n'


def folder(
    root: Path, corpus: str | bytes = CORPUS, qrels: str | bytes = "q\t1\t1\n", queries: str | bytes = QUERIES
) -> Path:
    (root / "qrels").mkdir(parents=True)
    for name, text in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", qrels)):
        (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    (root / "qrels" / "train.tsv").write_text("broken")
    return root


def test_a_folder_is_read_with_and_without_a_heading(tmp_path: Path) -> None:
    found = read_corpus(folder(tmp_path / "a", qrels="query-id\tcorpus-id\tscore\nq\t1\t2\nx\t1\t1\nq\t9\t0\n"))
    assert [(item.id, item.title, item.text) for item in found.items] == [("1", "T", "T\na")]
    assert (found.queries, found.relevant, found.split) == ({"q": "what"}, {"q": {"1": 2, "9": 0}}, "test")
    again = read_corpus(folder(tmp_path / "b", qrels="q\t0\t1\t2\n"))
    assert again.relevant == {"q": {"1": 2}}
    assert again.digest == found.digest
    assert read_corpus(folder(tmp_path / "c", corpus='{"_id": "1", "text": "b"}\n')).digest != found.digest


def test_a_folder_is_read_as_other_programs_write_it(tmp_path: Path) -> None:
    """Marks of UTF-8, line ends of Windows, numbers as ids and scores with a point, heads of four columns."""
    corpus = '{"_id": 1, "title": null, "text": "a\\u0000b \\ud800"}\n\n{"_id": "é\u2028", "text": ""}\n'
    queries = '{"_id": 7, "text": "what"}\n{"_id": "r", "text": ""}\n'
    qrels = "query-id\tQ0\tcorpus-id\tscore\n7\t0\t1\t1.0\n7\t0\té\u2028\t-1\n"
    windows = [b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() for text in (corpus, qrels, queries)]
    found = read_corpus(folder(tmp_path / "a", *windows))
    assert [(item.id, item.title, item.text) for item in found.items] == [("1", "", "a b  "), ("é\u2028", "", "")]
    assert (found.queries, found.relevant) == ({"7": "what"}, {"7": {"1": 1, "é\u2028": -1}})
    bare = read_corpus(folder(tmp_path / "b", qrels=b"\xef\xbb\xbfq\t1\t1\n"))
    assert bare.relevant == {"q": {"1": 1}}, "the mark is no part of an id"


def test_judgements_about_what_is_not_there_are_counted(tmp_path: Path) -> None:
    found = read_corpus(folder(tmp_path / "a", qrels="q\t1\t1\nq\t8\t1\nq\t9\t0\nx\t1\t1\ny\t1\t0\n"))
    assert (found.unknown_documents, found.unknown_queries) == (1, 1), "what is judged 0 is nothing to be found"
    known = read_corpus(folder(tmp_path / "b"))
    assert (known.unknown_documents, known.unknown_queries) == (0, 0)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"corpus": "{"}, "corpus.jsonl:1: it is no JSON"),
        ({"corpus": CORPUS + '{"_id": "2", "text": "a\nb"}'}, "corpus.jsonl:2: it is no JSON"),
        ({"corpus": "[1]\n"}, "corpus.jsonl:1: it is no JSON object"),
        ({"corpus": CORPUS.encode() + b"\xff\n"}, "corpus.jsonl:2: it is not UTF-8"),
        ({"corpus": CORPUS + '{"_id": "2", "text": ' + "[" * 200_000}, "corpus.jsonl:2: it has a number or a nesting"),
        ({"corpus": CORPUS + '{"_id": ' + "9" * 5000 + "}"}, "corpus.jsonl:2: it has a number or a nesting"),
        ({"corpus": CORPUS + '{"text": "b"}\n'}, "corpus.jsonl:2: `_id` is missing"),
        ({"corpus": CORPUS + '{"_id": true}\n'}, "corpus.jsonl:2: `_id` is missing"),
        ({"corpus": CORPUS + '{"_id": "' + "x" * 501 + '"}\n'}, "corpus.jsonl:2: `_id` is longer than 500"),
        ({"corpus": CORPUS + '{"_id": "\\u0000"}\n'}, "corpus.jsonl:2: `_id` has a control character"),
        ({"corpus": CORPUS + '{"_id": "\\ud800"}\n'}, "corpus.jsonl:2: `_id` has a control character"),
        ({"corpus": CORPUS + '{"_id": "2", "text": ["b"]}\n'}, "corpus.jsonl:2: `text` is no text"),
        ({"corpus": CORPUS + "\n" + CORPUS}, "corpus.jsonl:3: '1' is there twice"),
        ({"corpus": '{"_id": "1", "contents": "a"}\n'}, "corpus.jsonl: no document has a text"),
        ({"queries": QUERIES + QUERIES}, "queries.jsonl:3: 'q' is there twice"),
        ({"queries": '{"_id": "q", "text": " "}\n'}, "queries.jsonl:1: `text` is missing"),
        ({"qrels": "q\t1\t1\nq 1 1\n"}, "test.tsv:2: it is no judgement"),
        ({"qrels": "q\t1\t0.5\n"}, "test.tsv:1: it is no judgement"),
        ({"qrels": "q\t1\t²\n"}, "test.tsv:1: it is no judgement"),
        ({"qrels": "q\t1\t--1\n"}, "test.tsv:1: it is no judgement"),
        ({"qrels": "q\t1\t99999999999\n"}, "test.tsv:1: it is no judgement"),
        ({"qrels": "a\tb\tc\nquery-id\tcorpus-id\tscore\n"}, "test.tsv:2: it is no judgement"),
        ({"qrels": "q\t1\t1\nq\t1\t0\n"}, "test.tsv:2: it was judged otherwise above"),
        ({"qrels": "q\t1\t1\n".encode("utf-16")}, "test.tsv:1: it is not UTF-8"),
        ({"qrels": "x\t1\t1\n"}, "test.tsv: it has no judged queries"),
        ({"qrels": "q\t2\t1\n"}, "test.tsv: it names no document of corpus.jsonl"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, files: dict[str, str | bytes], told: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_corpus(folder(tmp_path / "a", **files))
    assert told in caught.value.message and caught.value.hint
    assert (caught.value.code, str(tmp_path) in caught.value.message) == ("evaluation_folder", True)


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv", ""])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    root = folder(tmp_path / "a")
    (root / "qrels" / "train.tsv").unlink()
    (root / missing).unlink() if missing else shutil.rmtree(root)
    with pytest.raises(Invalid, match=re.escape(str((root / (missing or "corpus.jsonl")).parent))):
        read_corpus(root)


def test_figures_are_those_of_the_definitions() -> None:
    relevant = {"a": {"x": 2, "y": 1}, "b": {"z": 1}, "c": {"w": 1}}
    found = measure(relevant, {"a": {"y": 0.9, "n": 0.5, "x": 0.4}, "b": {"n": 1.0, "z": 0.5}, "other": {"n": 1.0}})
    gain = (1 / math.log2(2) + 2 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))
    assert found.by_question["a"] == pytest.approx({"ndcg@10": gain, "recall@100": 1, "mrr@10": 1})
    assert found.by_question["b"]["mrr@10"] == 0.5
    assert found.by_question["c"] == {"ndcg@10": 0, "recall@100": 0, "mrr@10": 0}
    assert found.means["recall@100"] == pytest.approx(2 / 3, abs=1e-5)
    low, high = found.bounds["recall@100"]
    assert low < 2 / 3 < high
    assert confidence_interval([0.5] * 9) == (0.5, 0.5)


def test_a_run_is_compared_with_the_last_of_its_kind(tmp_path: Path) -> None:
    assert record_run(tmp_path, "one", {"ndcg@10": 0.5, "lexical": {}}, "1") == {}
    assert record_run(tmp_path, "two", {"ndcg@10": 0.1}, "2") == {}
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"subject": "one", "fig\n')
    assert record_run(tmp_path, "one", {"ndcg@10": 0.7}, "3") == {"at": "1", "ndcg@10": 0.2}
    assert json.loads((tmp_path / "evaluations.jsonl").read_text().splitlines()[-1])["at"] == "3"
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"subject": "one", "fig')
    assert record_run(tmp_path, "one", {"ndcg@10": 0.8}, "4")["at"] == "3"
    assert record_run(tmp_path, "one", {"ndcg@10": 0.9}, "5")["at"] == "4", "a kill while writing loses that run alone"


def _passage(path: str, start: int, end: int) -> Passage:
    return Passage(
        document="d", path=path, title="t", source="s", start_line=1, end_line=1, text="x" * (end - start), score=1.0,
        chunk="c", start_char=start, end_char=end,
    )  # fmt: skip


def test_own_questions_are_measured_by_document_span_source_and_floor() -> None:
    given = [
        QuestionResult(("s/a.md",), (), [_passage("a.md", 0, 9), _passage("a.md", 9, 20)], 0.8, False, 10.0),
        QuestionResult(
            (), (Span("s/b.md", 10, 30),), [_passage("c.md", 0, 9), _passage("b.md", 0, 20)], 0.5, False, 20.0
        ),
        QuestionResult((), (), [_passage("c.md", 0, 9)], 0.3, False, 30.0),
        QuestionResult((), (), [], 0.0, False, 40.0),
    ]
    found = summarise(given)
    assert found["mrr@10"] == pytest.approx(0.75)
    assert found["by_source"]["s"]["questions"] == 2
    assert (found["span_recall"], found["abstained"], found["without_answer"]) == (0.5, 0.25, 2)
    by_floor = {one["floor"]: one for one in found["abstention"]}
    assert (by_floor[0.0]["answered"], by_floor[0.0]["rightly_unanswered"]) == (0.75, 0.5)
    assert (by_floor[0.4]["answered"], by_floor[0.4]["right"], by_floor[0.4]["rightly_unanswered"]) == (0.5, 1.0, 1.0)
    assert by_floor[0.7]["answered"] == 0.25
    # with no floor the third is answered, though nothing answers it; from 0.35 on it is left, and the second is not
    assert found["calibrated"] == {"floor": 0.35, "handled": 1.0, "handled_now": 0.75}
    declared = [dataclasses.replace(one, floor=0.6) for one in given]
    assert summarise(declared)["calibrated"] == {"floor": 0.35, "handled": 1.0, "handled_now": 0.75}, (
        "now the second is left"
    )


def test_questions_that_nothing_answers_are_measured_by_their_abstentions_alone() -> None:
    found = summarise([QuestionResult((), (), [], 0.2, False, 1.0)])
    assert json.loads(json.dumps(found, allow_nan=False))["ndcg@10"] == 0.0
    assert (found["confidence"]["ndcg@10"], found["abstained"], found["without_answer"]) == ([0.0, 1.0], 1.0, 1)


def test_an_answer_that_is_quoted_from_a_copy_counts_where_it_says_so() -> None:
    span = Span("s/b.md", 10, 30)
    elsewhere = Place(
        document="e", path="b.md", title="t", source="s", start_line=1, end_line=1, start_char=10, end_char=25
    )
    quoted = _passage("a.md", 0, 15)
    for also, covered, rank in (([], 0.0, 0.0), ([elsewhere], 0.75, 0.5)):
        passages = [msgspec.structs.replace(quoted, also=also)]
        found = summarise([QuestionResult((), (span,), passages, 0.8, False, 1.0)])
        assert (found["span_recall"], found["mrr@10"]) == (covered, rank)


@settings(max_examples=20)
@given(
    spans=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=3),
    places=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.booleans()), max_size=6),
)
def test_characters_of_spans_are_covered_once(
    spans: list[tuple[int, int]], places: list[tuple[int, int, bool]]
) -> None:
    """However passages overlap, lie in each other or reach beyond it; those of other documents do not count."""
    answers = tuple(Span("s/b.md", start, start + length) for start, length in spans)
    passages = [_passage("b.md" if own else "c.md", start, start + length) for start, length, own in places]
    shown = {char for start, length, own in places if own for char in range(start, start + length)}
    wanted = [char in shown for one in answers for char in range(one.start, one.end)]
    found = summarise([QuestionResult((), answers, passages, 0.8, abstained=False, milliseconds=1.0)])
    assert found["span_recall"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-5)


def test_a_span_without_end_takes_no_memory() -> None:
    found = summarise(
        [
            QuestionResult(
                (), (Span("s/b.md", 0, 10**15),), [_passage("b.md", 0, 9)], 0.8, abstained=False, milliseconds=1.0
            )
        ]
    )
    assert found["span_recall"] == 0


def test_parts_are_by_source_and_sensitivity_and_drawn() -> None:
    def one(document: str, *paths: str) -> QuestionResult:
        named = [path.partition("/") for path in paths]
        passages = [msgspec.structs.replace(_passage(name, 0, 9), source=source) for source, _, name in named]
        return QuestionResult((document,), (), passages, 0.8, False, 1.0)

    found = summarise(
        [one("s/a.md", "s/a.md"), one("s/b.md", "s/a.md"), one("hr/c.md", "hr/c.md")],
        {"s/a.md": "internal", "hr/c.md": "restricted"},
    )
    assert {name: row["questions"] for name, row in found["by_source"].items()} == {"s": 2, "hr": 1}
    parts = found["by_sensitivity"]
    assert (parts["restricted"]["ndcg@10"], parts["internal"]["ndcg@10"], parts["unknown"]["ndcg@10"]) == (1, 1, 0)
    own = found["by_source"]["s"]
    assert (own["recall@100"], own["mrr@10"], own["questions"]) == (0.5, 0.5, 2)
    assert own["confidence"] == own["bounds"]["ndcg@10"] == own["bounds"]["recall@100"] == [0.0, 1.0]
    assert [at["right"] for at in own["abstention"] if at["floor"] == 0.5] == [0.5]
    assert "<svg" in plot.abstention_chart(found) and "<svg" in plot.parts_chart(found)
    ranking = {"ndcg@10": 0.5, "confidence": {"ndcg@10": [0.4, 0.6]}}
    assert "vectors" in plot.parts_chart({**ranking, "lexical": ranking, "vector": ranking}), "of a labelled folder"
    assert plot.abstention_chart({}) == plot.parts_chart({"by_source": {}}) == ""


def test_what_is_below_the_floor_of_its_workload_counts_as_not_answered() -> None:
    found = summarise(
        [
            QuestionResult(("s/a.md",), (), [_passage("a.md", 0, 9)], confidence, False, 1.0, floor)
            for confidence, floor in ((0.3, 0.4), (0.5, 0.4), (0.3, 0.0))
        ]
    )
    assert (found["abstained"], found["by_source"]["s"]["abstained"]) == (0.33333, 0.33333)
    assert found["ndcg@10"] == 1, "what was found is measured all the same"


def test_a_draft_is_no_question_until_somebody_accepts_it(tmp_path: Path) -> None:
    passage = draft.Passage("s/a.md", 10, 210, "Leave is 25 days. " + "-" * 12)
    assert draft.draft_prompt(passage).count("-" * 12) == 2, "the text cannot end its quotation"
    one = draft.draft_line("How many days of leave are there?", passage, "ana@acme.example", "w")
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in (one, one, {**one, "state": "accepted"})))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(draft.accepted_questions(lines)) == 1 and "state" not in draft.accepted_questions(lines)[0]
    assert draft.accept_drafts(file, [2], "ben@acme.example") == 1
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["state"] for line in lines] == ["draft", "accepted", "accepted"]
    assert lines[1]["accepted_by"] == "ben@acme.example"
    with pytest.raises(Invalid):
        draft.accept_drafts(file, [2], "ben@acme.example")
    assert draft.accept_drafts(file, [], "ben@acme.example") == 1


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("How many days of leave are there?", "How many days of leave are there?"),
        ('Question: "How many days of leave are there?"\nBecause.', "How many days of leave are there?"),
        ("Sure!\n1. How many days of leave are there?", "How many days of leave are there?"),
        ("Leave is 25 days.", None),
        ("Why?", None),
        ("x" * 400 + "?", None),
        ("年休は何日ですか？", "年休は何日ですか？"),
        ("何？", None),
        ("كم يوم إجازة لدي؟", "كم يوم إجازة لدي؟"),
    ],
)
def test_only_a_question_is_taken_of_an_answer(answer: str, question: str | None) -> None:
    assert draft.parse_question(answer) == question


def test_how_often_a_reranker_gave_no_order_is_counted() -> None:
    plain = QuestionResult(("s/a.md",), (), [_passage("a.md", 0, 9)], 0.8, abstained=False, milliseconds=10.0)
    assert "reranked" not in summarise([plain])
    ordered, late = (replace(plain, in_order=(done,)) for done in (True, False))
    assert summarise([ordered, late, ordered, plain])["reranked"] == {"asked": 3, "skipped": 1}


def test_as_many_passages_are_asked_for_as_recall_is_told_of() -> None:
    depth = int(NAMES[1].partition("@")[2])
    assert labelled_questions._DEPTH == depth <= MAX_PASSAGES


QUESTION = {"question": "How much leave?", "person": "ben@acme.example", "workload": "w", "documents": ["s/a.md"]}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1]", "2: it is no JSON object"),
        ('"text"', "2: it is no JSON object"),
        ("{", "2: it is no JSON object"),
        ("[" * 200_000, "2: it is no JSON object"),
        ('{"question": "q", "workload": "w"}', "2: person: Field required"),
        ('{"question": "q", "person": "p", "workload": "w", "documnets": []}', "2: documnets: Extra inputs"),
        ('{"question": "\\ud800", "person": "p", "workload": "w"}', "2: question: Input should be a valid string"),
        ('{"question": "q", "person": "p", "workload": "w", "spans": [{}]}', "2: spans.0.document: Field required"),
        (
            '{"question": "q", "person": "p", "workload": "w", "spans": [{"document": "s/a", "start": 5, "end": 5}]}',
            "2: spans.0: Value error, `end` is not after `start`",
        ),
        ('{"question": "q\xff', " is not UTF-8 (byte "),
    ],
)
def test_a_wrong_line_of_questions_is_named(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_bytes(f"{json.dumps(QUESTION)}\n{line}\n".encode("latin-1"))
    with pytest.raises(Invalid) as caught:
        labelled_questions.read_lines(file, "questions.jsonl")
    assert caught.value.code == "questions_file" and caught.value.hint
    assert caught.value.message.startswith("questions.jsonl") and told in caught.value.message
    with pytest.raises(Invalid, match=r"outside the workspace"):
        labelled_questions.read_questions(tmp_path / "inner", "../questions.jsonl")


def test_questions_keep_the_number_of_their_line(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    draft_line = json.dumps({**QUESTION, "state": "draft"})
    file.write_text(f"\ufeff\r\n{draft_line}\r\n\r\n{json.dumps(QUESTION)}\r\n", encoding="utf-8")
    lines, drafts = labelled_questions.read_lines(file, file.name)
    assert ([line.number for line in lines], lines[0].question.documents, drafts) == ([4], ["s/a.md"], 1)
    file.write_text(draft_line)
    with pytest.raises(Invalid, match=r"0 questions and 1 drafts that nobody accepted"):
        labelled_questions.read_lines(file, file.name)
    with pytest.raises(Invalid, match=r"cannot be read: No such file"):
        labelled_questions.read_lines(tmp_path / "nowhere", "nowhere")


def test_what_is_wrong_in_a_file_of_drafts_leaves_it_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    one = json.dumps({**QUESTION, "state": "draft"})
    for broken in ("[1]", "{", "[" * 200_000):
        file.write_text(text := f"\n{one}\n{broken}\n")
        with pytest.raises(Invalid, match=r"questions\.jsonl:3: it is no JSON"):
            draft.accept_drafts(file, [], "ben@acme.example")
        assert file.read_text() == text
    file.write_text(f"\n{one}\n")
    with pytest.raises(Invalid, match=r"line 1 is no draft"):
        draft.accept_drafts(file, [1], "ben@acme.example")
    assert draft.accept_drafts(file, [2], "ben@acme.example") == 1, "the number is that of the line in the file"
    assert file.read_text().splitlines()[0] == ""
