"""A trial of search on a labelled folder, by the command that people use: its own database, the product's search."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from groundplan.cli.knowledge import app
from groundplan.knowledge.evaluation.beir import MAX_ID_CHARS
from groundplan.knowledge.evaluation.measure import measure
from groundplan.knowledge.parsing.text import clean
from groundplan.knowledge.retrieval.words import Analyzer

SUBJECTS = ("leave", "travel", "salary", "laptop", "office", "training")
SHAPES = (
    "The {0} rule says that every {0} needs an approval.",
    "Ask your lead about {0} before you {0} again, and again about {0}.",
    "A short note: {0}.",
    "Nothing here is of interest but one word in a much longer sentence about other things, which is {0}.",
)


LONGEST_ID = "".join(map(chr, random.Random(3).choices(range(0x1F300, 0x1F600), k=MAX_ID_CHARS)))


def _folder(root: Path) -> Path:
    (root / "qrels").mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {"_id": f"{subject}-{number}", "title": subject if number == 2 else "", "text": shape.format(subject)}
        for subject in SUBJECTS
        for number, shape in enumerate(SHAPES)
    ]
    rows.append({"_id": "empty", "title": "", "text": ""})
    # what a file can hold and PostgreSQL or the tokenizer cannot, under the longest id that there may be
    rows.append({"_id": LONGEST_ID, "title": "odd\0", "text": "A \ud800 note\0 about\r\nleave and trains 🚆."})
    rows.append({"_id": 7, "title": None, "text": "Nummer sieben: Überstunden, 残業"})
    (root / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": subject, "text": f"What is the rule about {subject}?"} for subject in SUBJECTS]
    (root / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    judged = "".join(f"{subject}\t{subject}-0\t2\n{subject}\t{subject}-3\t1\n" for subject in SUBJECTS)
    judged += "leave\tno such document\t0\nnobody asks this\tleave-0\t1\n"
    (root / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return root


def _reference(root: Path) -> dict[str, dict[str, float]]:
    """BM25 of the textbook over the same terms."""
    terms = Analyzer().terms
    rows = [json.loads(line) for line in (root / "corpus.jsonl").read_text().splitlines()]
    texts = {str(row["_id"]): terms(clean(f"{row['title'] or ''}\n{row['text']}")) for row in rows if row["text"]}
    mean = sum(map(len, texts.values())) / len(texts)
    rankings = {}
    for query in (json.loads(line) for line in (root / "queries.jsonl").read_text().splitlines()):
        scores = {}
        for id, text in texts.items():
            counts, score = Counter(text), 0.0
            for term in terms(query["text"]):
                df = sum(term in other for other in texts.values())
                idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
                norm = 1.2 * (0.25 + 0.75 * len(text) / mean)
                score += idf * counts[term] * 2.2 / (counts[term] + norm)
            if score:
                scores[id] = score
        rankings[query["_id"]] = scores
    return rankings


def test_a_labelled_folder_is_tried_and_tried_again(tmp_path: Path) -> None:
    folder, home = _folder(tmp_path / "set"), tmp_path / "home"
    arguments = ["evaluate", "--beir", str(folder), "--home", str(home), "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    found = json.loads(done.stdout)
    assert {"ndcg@10", "recall@100", "lexical", "vector", "p50_ms", "p95_ms", "documents"} <= found.keys()
    assert (found["documents"], found["questions"], found["last"]) == (27, 6, {})
    assert found["recall@100"] == found["vector"]["recall@100"] == 1
    relevant = {subject: {f"{subject}-0": 2, f"{subject}-3": 1} for subject in SUBJECTS}
    wanted = measure(relevant, _reference(folder))
    assert {name: found["lexical"][name] for name in wanted.means} == wanted.means
    assert (found["unknown_documents"], found["unknown_queries"]) == (0, 1)
    assert "queries.jsonl does not have, which are not asked: 1" in done.stderr
    again = CliRunner().invoke(app, arguments[:-1], catch_exceptions=False)
    assert "are embedded" not in again.output and "6 of 6 questions are asked" in again.output, "the corpus is there"
    assert "nDCG@10 +0.0000" in again.output
