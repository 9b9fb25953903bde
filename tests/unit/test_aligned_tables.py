"""Tables of a PDF without lines: found where rows surely stand under one another, never in prose."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pytest
from tests import knowledge_files as files

from groundplan.knowledge.parsing.pdf import read_pdf
from groundplan.knowledge.parsing.unruled_tables import MAX_SIGNS, PageSign, find_tables

WIDTH = 5.0
"""Of a digit, about."""
PROSE = (72, 740, "The prices below hold from January 2026 and are without freight, which is told by mail.")


def placed(
    rows: Sequence[Sequence[str]], at: Sequence[float], *, top: float = 660, pitch: float = 16
) -> list[tuple[float, float, str]]:
    """Each cell at its column; where a column is negative its cells end there."""
    return [
        (x if x >= 0 else -x - WIDTH * len(cell), top - pitch * number, cell)
        for number, row in enumerate(rows) for x, cell in zip(at, row, strict=True) if cell
    ]  # fmt: skip


def read(*words: tuple[float, float, str]) -> list[tuple[list[str], list[list[str]]]]:
    """The tables of a page with these words, and with some that have numbers far below them."""
    below = [(72, 90, "1 of them is in Berlin"), (72, 77, "2 of them are in Bonn")]
    return [(table.columns, table.rows) for table in read_pdf(files.placed_pdf(PROSE, *words, *below)).tables]


PARTS = [
    ("Part", "Price", "Stock"),
    ("Pump A 12", "1,200 EUR", "4"),
    ("Seal kit", "18 EUR", "230"),
    ("Motor", "780 EUR", ""),
]


@pytest.mark.parametrize("at", [(72, 250, 400), (72, -300, -420)])
def test_cells_that_stand_under_one_another_are_a_table(at: tuple[float, ...]) -> None:
    found = read(*placed(PARTS, at))
    assert found == [(["Part", "Price", "Stock"], [list(row) for row in PARTS[1:]])]


def test_the_order_in_which_it_was_drawn_does_not_matter() -> None:
    by_column = sorted(placed(PARTS, (72, 250, 400)), key=lambda word: word[0])
    assert read(*by_column) == read(*placed(PARTS, (72, 250, 400)))


def test_the_text_stays_and_the_table_stands_below_it() -> None:
    found = read_pdf(files.placed_pdf(PROSE, *placed(PARTS, (72, 250, 400))))
    assert found.text.index("Seal kit 18 EUR 230") < found.text.index("| Seal kit | 18 EUR | 230 |")
    assert found.tables[0].name == "page 1, table 1"


def test_a_cell_may_go_on_in_the_next_line() -> None:
    rows = [("Part", "Price"), ("Pump with the seal", "1,200 EUR"), ("kit of 2026", ""), ("Motor", "780 EUR")]
    assert read(*placed(rows, (72, 300), pitch=12)) == [
        (["Part", "Price"], [["Pump with the seal kit of 2026", "1,200 EUR"], ["Motor", "780 EUR"]])
    ]


def test_years_may_be_titles_above_an_empty_corner() -> None:
    rows = [("", "2024", "2025"), ("Revenue", "1,200", "1,400"), ("Costs", "900", "1,000")]
    assert read(*placed(rows, (72, 250, 400))) == [(["column 1", "2024", "2025"], [list(row) for row in rows[1:]])]


def test_what_stands_above_and_below_is_no_row() -> None:
    page = [
        (72.0, 676.0, "Acme GmbH, Berlin"),
        (400.0, 676.0, "page 3"),
        (72.0, 596.0, "Freight is extra, as our terms of 2026 say."),
    ]
    assert read(*placed(PARTS, (72, 250, 400)), *page) == read(*placed(PARTS, (72, 250, 400)))


NO_TABLES = {
    "prose in two columns": [
        ("Pumps may be returned within 30 days", "The seal kit of 2026 fits all of the"),
        ("when they were not used. Whoever", "pumps A 12 to A 19, and none of the"),
        ("sends one back after 60 days pays the", "motors of 5 kW. It is sent in 2 days,"),
        ("freight of 18 EUR and what it costs to", "or in 3 to places beyond 500 km, which"),
    ],
    "contents": [("Returns", "3"), ("Seals and their sizes", "12"), ("Motors", "27"), ("Terms", "41")],
    "a form": [("Name:", "Ana Costa"), ("Phone:", "030 1234"), ("Room:", "12"), ("Born:", "1990")],
    "a list": [("1.", "Open the pump"), ("2.", "Take 4 screws out"), ("3.", "Wait for 30 s"), ("4.", "Close it")],
    "figures without a head": [("Rent", "1,200 EUR"), ("Food", "300 EUR"), ("Travel", "80 EUR")],
    "words without numbers": [("Who", "Does what"), ("Ana", "Purchasing"), ("Ben", "Sales of pumps")],
    "two rows": [("Part", "Price"), ("Pump", "12 EUR")],
    "another column in each line": [("Part", "Price"), ("Pump number twelve of the newest", "12")],
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_only_looks_like_a_table_is_none(kind: str) -> None:
    assert read(*placed(NO_TABLES[kind], (72, 320), pitch=13)) == []


def test_rows_that_are_nearly_empty_are_none() -> None:
    rows = [("A", "B", "C", "D", "E"), *((name, f"{number}", "", "", "") for number, name in enumerate("uvwxyz"))]
    assert read(*placed(rows, (72, 172, 272, 372, 472))) == []
    full = [row[:2] for row in rows]
    assert len(read(*placed(full, (72, 172)))) == 1


def test_cells_as_long_as_a_line_of_prose_are_none() -> None:
    for times, found in ((7, 1), (9, 0)):
        rows = [("What was said", "When"), *(("and so on " * times, f"{year}") for year in (2024, 2025))]
        assert len(read(*placed(rows, (72, 560)))) == found


def test_lines_whose_words_stand_far_apart_are_none() -> None:
    """As a justified line has them: 8 points between words of 10."""
    lines = ["Terms hold from 2026", "Pump costs 12 now", "Seal costs 18 now", "Motor costs 78 now"]
    words = [
        (72.0 + 36 * place, 660.0 - 13 * number, word)
        for number, line in enumerate(lines) for place, word in enumerate(line.split())
    ]  # fmt: skip
    assert read(*words) == []


def test_cells_that_stand_across_each_other_are_none() -> None:
    across = [(160.0, 652.0, "Pump of the year before"), (300.0, 652.0, "12 or 14")]
    assert read(*placed(PARTS[:3], (72, 250, 400)), *across) == []


def test_a_page_of_signs_without_end_is_not_looked_at() -> None:
    row = [PageSign(10.0 * at, 0, 10.0 * at + 5, 10, "1") for at in range(MAX_SIGNS + 1)]
    assert find_tables(row) == []
    assert find_tables([]) == []
    assert find_tables([PageSign(0, 0, 0, 0, "x")] * 5) == []
    layers = chain.from_iterable(
        [PageSign(x, y, x + 5, y + 10, "9") for x in (0.0, 100.0)] for y in range(0, 40_000, 12)
    )
    assert find_tables(list(layers)) == [], "no row of it is a head"
