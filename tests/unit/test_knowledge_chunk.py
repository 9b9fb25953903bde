"""Passages are verbatim spans with right lines, nothing is lost, and sections are kept apart."""

from hypothesis import given
from hypothesis import strategies as st

from groundplan.knowledge.chunk import first_heading, split_passages

HANDBOOK = """# Handbook

Welcome.

## Leave

Employees have 28 days of paid leave a year.

- Ask your lead.
- Two weeks ahead.

## Expenses

```
# not a heading
total
```
"""

_pieces = st.sampled_from(
    [
        "# A\n",
        "## B\n",
        "text ",
        "A sentence. ",
        "\n",
        "\n\n",
        "```\n",
        "- item\n",
        "| a | b |\n",
        "wort " * 40,
        "猫" * 60,
        "\t",
        "   ",
    ]
)
_texts = st.one_of(st.lists(_pieces, max_size=40).map("".join), st.text(max_size=400))


def test_sections_are_kept_apart_and_told_by_line() -> None:
    found = split_passages(HANDBOOK, markdown=True)
    assert [(chunk.start_line, chunk.end_line) for chunk in found] == [(1, 3), (5, 10), (12, 17)]
    assert found[1].text.startswith("## Leave\n\nEmployees have 28 days")
    assert found[1].headings == ("Handbook", "Leave")
    assert found[2].headings == ("Handbook", "Expenses")


def test_a_heading_goes_with_what_follows() -> None:
    found = split_passages("# One\n\n## Two\n\nText.\n", markdown=True)
    assert [chunk.text for chunk in found] == ["# One\n\n## Two\n\nText."]


def test_plain_text_has_no_headings() -> None:
    assert [chunk.text for chunk in split_passages("# a\n\nb\n", markdown=False)] == ["# a\n\nb"]


def test_long_paragraphs_are_cut_at_sentences() -> None:
    text = "This is a sentence of some length. " * 60
    found = split_passages(text, markdown=True, limit=300)
    assert len(found) > 3
    assert all(chunk.text.endswith(".") for chunk in found)


def test_front_matter_is_left_out_but_lines_count_from_the_file() -> None:
    text = "---\ntitle: X\n---\n# Y\n"
    assert [(chunk.text, chunk.start_line) for chunk in split_passages(text, markdown=True, start=17)] == [("# Y", 4)]
    assert first_heading(text, 17) == "Y"


@given(_texts, st.booleans(), st.integers(20, 300))
def test_chunks_are_verbatim_in_order_and_complete(text: str, markdown: bool, limit: int) -> None:
    end = 0
    for number, chunk in enumerate(split_passages(text, markdown=markdown, limit=limit)):
        assert chunk.number == number
        assert chunk.text == text[chunk.start_char : chunk.end_char] != ""
        assert len(chunk.text) <= limit
        assert not text[end : chunk.start_char].strip(), "only white space may be left out"
        assert chunk.start_line == text.count("\n", 0, chunk.start_char) + 1
        assert chunk.end_line == text.count("\n", 0, chunk.end_char) + 1
        end = chunk.end_char
    assert not text[end:].strip()


def test_rows_that_begin_a_passage_have_the_head_of_their_table_beside_them() -> None:
    rows = "".join(f"| P{number} | {number}.5 | ok |\n" for number in range(60))
    table = f"| pump | bar | state |\n| --- | ---: | --- |\n{rows}"
    text = f"# Pumps\n\nAs they were read.\n{table}\nNothing | of a table.\n"
    found = split_passages(text, markdown=True, limit=200)
    later = [chunk for chunk in found if chunk.text.startswith("| P")]
    assert len(later) > 3
    assert {chunk.head for chunk in later} == {"| pump | bar | state |"}
    assert not any(chunk.head for chunk in found if chunk not in later)
    assert all(chunk.text == text[chunk.start_char : chunk.end_char] for chunk in found), "it is no part of the text"
    assert "".join("".join(chunk.text.split()) for chunk in found) == "".join(text.split())

    for other in (f"```\n{table}```\n", rows, f"a | b\n{rows}"):
        assert not any(chunk.head for chunk in split_passages(other, markdown=True, limit=200)), other[:20]
    assert not any(chunk.head for chunk in split_passages(text, markdown=False, limit=200))
    wide = "| " + " | ".join(f"column {number}" for number in range(80)) + " |\n|---|\n" + rows
    heads = {chunk.head for chunk in split_passages(wide, markdown=True, limit=100) if chunk.text.startswith("| P")}
    (head,) = heads
    assert 0 < len(head) <= 100
    assert wide.startswith(head) and head.endswith("|"), "of a head as wide as a passage, whole cells"
