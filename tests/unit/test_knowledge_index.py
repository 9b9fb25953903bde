"""Editions of the index, the pure part: cutting anew, the next step, what is declared and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Index, IndexEmbedding, Source
from groundplan.catalog.check import validate_files
from groundplan.core.errors import Invalid
from groundplan.gateway.call.grounding.notes import GroundingNotes
from groundplan.knowledge.chunk import split_passages
from groundplan.knowledge.index.model import Edition, Embedding, IndexSettings, State, declared_settings
from groundplan.knowledge.index.recut import join_passages, recut_passages
from groundplan.knowledge.index.upkeep import DeclaredIndex, Step, next_step
from groundplan.knowledge.parsing.model import Piece

AT = datetime(2026, 11, 25, tzinfo=UTC)
SMALL = IndexSettings(characters=120)
_lines = st.lists(
    st.one_of(
        st.sampled_from(["", "# Title", "## Part", "```", "- item", "| a | b |", "  indented"]),
        st.text(alphabet="abc .!?é", max_size=60),
    ),
    max_size=25,
)


def pieces(text: str, limit: int, *, markdown: bool) -> list[Piece]:
    return [
        Piece(c.number, c.text, c.start_char, c.end_char, c.start_line, c.end_line, list(c.headings), c.head)
        for c in split_passages(text, markdown=markdown, limit=limit)
    ]


@given(_lines, st.booleans(), st.sampled_from([30, 80, 400]), st.sampled_from([20, 90, 300]))
def test_a_document_cut_anew_from_its_passages_has_every_character_at_its_place(
    lines: list[str], markdown: bool, before: int, after: int
) -> None:
    text = "\n".join(lines)
    first = pieces(text, before, markdown=markdown)
    found = recut_passages(first, markdown=markdown, limit=after)
    assert all(len(piece.text) <= after for piece in found)
    for piece in found:
        own = text[piece.start_char : piece.end_char]
        assert "".join(own.split()) == "".join(piece.text.split())
        assert piece.start_line == 1 + text.count("\n", 0, piece.start_char)
        assert piece.end_line == piece.start_line + own.count("\n")
    assert "".join("".join(piece.text.split()) for piece in found) == "".join(text.split())


def test_an_ordinary_document_is_cut_as_if_it_were_read_anew() -> None:
    text = (
        "---\ntitle: x\n---\n# Leave\n\nEmployees have 28 days. They plan them early.\n\n## Sick\n\n"
        "- call your lead\n- rest\n\n```\ncode  here\n```\n\nMore of the same, and more of it.\n\n"
        "| day | who |\n| --- | --- |\n| Monday | Ana and Ben |\n| Tuesday | Hana |\n| Friday | nobody at all |\n"
    )
    start = text.index("# Leave")

    def cut(limit: int) -> list[Piece]:
        return [
            Piece(c.number, c.text, c.start_char, c.end_char, c.start_line, c.end_line, list(c.headings), c.head)
            for c in split_passages(text, markdown=True, start=start, limit=limit)
        ]

    for before, after in ((400, 60), (60, 400), (45, 90)):
        assert recut_passages(cut(before), markdown=True, limit=after) == cut(after)
    assert join_passages(cut(60)).strip() == text[start:].strip()
    assert recut_passages([], markdown=True, limit=60) == []


def edition(id: int, state: State, settings: IndexSettings = SMALL, **more: object) -> Edition:
    return replace(Edition(id, settings, state, AT), **more)  # type: ignore[arg-type]


DEFAULT = IndexSettings()
SERVES = edition(1, "serving", DEFAULT)
GOOD: dict[str, object] = {"against": []}
BAD: dict[str, object] = {"against": ["it lacks s/a.md"]}


@pytest.mark.parametrize(
    ("editions", "wanted", "step"),
    [
        ([SERVES], DEFAULT, None),
        ([SERVES], SMALL, Step("create")),
        ([SERVES, edition(2, "building")], SMALL, Step("build", 2)),
        ([SERVES, edition(2, "building")], DEFAULT, Step("drop", 2)),
        ([SERVES, edition(2, "building")], IndexSettings(characters=500), Step("drop", 2)),
        ([SERVES, edition(2, "ready")], SMALL, Step("compare", 2)),
        ([SERVES, edition(2, "ready", compared=BAD)], SMALL, None),
        ([SERVES, edition(2, "ready", compared=GOOD)], SMALL, Step("begin", 2)),
        ([SERVES, edition(2, "switching")], DEFAULT, Step("finish", 2)),
        ([edition(1, "kept", DEFAULT), edition(2, "serving")], DEFAULT, Step("begin", 1)),
        ([edition(1, "kept", DEFAULT, declined=True), edition(2, "serving")], DEFAULT, None),
        ([edition(1, "kept", DEFAULT), edition(2, "serving")], IndexSettings(characters=500), Step("create")),
    ],
)
def test_the_next_step_follows_from_what_is_stored_and_declared(
    editions: list[Edition], wanted: IndexSettings, step: Step | None
) -> None:
    assert next_step(editions, DeclaredIndex(wanted)) == step


def test_by_hand_nothing_is_switched_to_by_itself() -> None:
    ready = [SERVES, edition(2, "ready", compared=GOOD)]
    assert next_step(ready, DeclaredIndex(SMALL, by_hand=True)) is None
    kept = [edition(1, "kept", DEFAULT), edition(2, "serving")]
    assert next_step(kept, DeclaredIndex(DEFAULT, by_hand=True)) is None


def test_what_a_blueprint_declares_is_one_way_of_making_an_index() -> None:
    def source(name: str, characters: int | None) -> Source:
        return Source(
            name=name, path=".", sensitivity="internal", owner="a@x.example", readers=[], characters=characters
        )

    sources = [source("b", 900), source("a", None), source("c", 400)]
    assert declared_settings(Index(), [source("a", None)], {}) == DEFAULT
    assert declared_settings(Index(), sources, {}) == IndexSettings(sources={"b": 900})
    rule = Index(embedding=IndexEmbedding(workload="i", deployment="e", dimensions=1024))
    found = declared_settings(rule, [], {"e": "acme/e5"})
    assert found.embedding == Embedding(workload="i", deployment="e", model="acme/e5", dimension=1024)
    assert found != declared_settings(rule, [], {"e": "acme/e6"})
    assert found.dimension == 1024
    assert IndexSettings(sources={"b": 900}).limit("b") == 900


BASE = """
kind: company
name: acme
format: 1
owners: {business: ana@acme.example}
index: {embedding: {workload: index, deployment: embed, dimensions: 100}}
---
kind: person
name: ana
full_name: Ana
email: ana@acme.example
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: deployment
name: chat
site: here
model: acme/chat
url: http://127.0.0.1:9/v1
price: {input: 0.1 USD/Mtok, output: 0.1 USD/Mtok}
---
kind: deployment
name: embed
type: embeddings
site: here
model: acme/e5
url: http://127.0.0.1:9/v1
price: {input: 0.1 USD/Mtok, output: 0.1 USD/Mtok}
---
kind: source
name: handbook
path: ./handbook
sensitivity: confidential
owner: ana@acme.example
readers: [everyone]
chunking: {characters: 800}
---
kind: workload
name: index
purpose: Embeds documents for search
audience: employees
stage: pilot
sensitivity: confidential
embeddings: [embed]
owners: {business: ana@acme.example}
---
kind: budget
name: index
covers: workload/index
limit: 5 USD/month
"""


def refused(old: str, new: str) -> str:
    with pytest.raises(Invalid) as caught:
        validate_files({"workspace.yaml": BASE.replace(old, new, 1)})
    return str(caught.value)


def test_an_embedding_names_a_served_workload_that_may_see_every_source() -> None:
    workspace = validate_files({"workspace.yaml": BASE})
    assert workspace.company.index.embedding is not None
    assert workspace.sources["handbook"].chunking.characters == 800
    assert "workload other is not declared" in refused("workload: index,", "workload: other,")
    assert "not among the embeddings" in refused("embeddings: [embed]", "embeddings: []")
    governed = "path: ./handbook\ngoverned: {residency: [EU]}"
    assert "handbook may be processed in EU only" in refused("path: ./handbook", governed)
    there = BASE.replace("embeddings: [embed]", "embeddings: [embed]\nresidency: [SE]").replace("EU", "SE")
    assert validate_files({"workspace.yaml": there.replace("path: ./handbook", governed)}).sources
    assert "not served" in refused("stage: pilot", "stage: proposed")
    told = refused("stage: pilot\nsensitivity: confidential", "stage: pilot\nsensitivity: internal")
    assert "source handbook is confidential" in told
    assert refused("characters: 800", "characters: 8")


def test_an_answer_says_that_its_documents_were_searched_by_words_alone() -> None:
    assert GroundingNotes([], []).json_members() == b""
    assert b'"degraded":"documents were searched by words alone' in GroundingNotes([], [], by_words=True).json_members()


ASKED = """
---
kind: workload
name: asked
purpose: Answers
stage: pilot
sensitivity: confidential
residency: [EU]
sources: [handbook]
owners: {business: ana@acme.example}
---
kind: budget
name: asked
covers: workload/asked
limit: 5 USD/month
"""


def codes(text: str) -> set[str]:
    with pytest.raises(Invalid) as caught:
        validate_files({"workspace.yaml": text})
    return {problem.code for problem in caught.value.problems}


def test_questions_are_embedded_by_who_may_see_them_and_where_they_may_be() -> None:
    inside = BASE.replace("embeddings: [embed]", "embeddings: [embed]\nresidency: [EU]") + ASKED
    assert validate_files({"workspace.yaml": inside}).workloads
    assert codes(BASE + ASKED) == {"embedding_residency"}
    assert codes(inside.replace("embed]\nresidency: [EU]", "embed]\nresidency: [EU, US]")) == {"embedding_residency"}
    more = "sensitivity: confidential\nresidency: [EU]\nsources"
    assert codes(inside.replace(more, more.replace("confidential", "restricted"))) == {"embedding_sensitivity"}
    assert validate_files({"workspace.yaml": BASE + ASKED.replace("pilot", "proposed")}).workloads, "nobody asks it"
