"""Numbers with check digits: the right ones are found in text, and hardly any with one character changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from groundplan.core import check_digits
from groundplan.core.detect import find

RIGHT: list[tuple[Callable[[str], bool], str, str]] = [
    (check_digits.is_nhs_number, "943 476 5919", "national_id"),
    (check_digits.is_finnish_id, "131052-308T", "national_id"),
    (check_digits.is_singapore_id, "S1234567D", "national_id"),
    (check_digits.is_aadhaar, "2345 6789 0124", "national_id"),
    (check_digits.is_belgian_id, "85.07.30-033.28", "national_id"),
    (check_digits.is_bitcoin_address, "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "crypto"),
    (check_digits.is_bitcoin_address, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "crypto"),
]
MEANT = [
    ("NHS number: 9434765919", "9434765919"), ("my TFN is 123 456 782.", "123 456 782"), ("BSN 111222333", "111222333"),
]  # fmt: skip


@pytest.mark.parametrize(("fits", "text", "kind"), RIGHT, ids=[text for _, text, _ in RIGHT])
def test_a_right_number_is_found_and_a_changed_one_is_not(fits: Callable[[str], bool], text: str, kind: str) -> None:
    assert fits(text)
    found = find(f"it is {text}, I think")
    assert [(one.kind, f"it is {text}, I think"[one.start : one.end]) for one in found] == [(kind, text)]
    last = "2" if text[-1] != "2" else "3"
    changed = text[:-1] + (last if text[-1].isdigit() else "Y" if text[-1] != "Y" else "X")
    assert not fits(changed)
    assert [one.kind for one in find(f"it is {changed}, I think") if one.kind == kind] == []


@pytest.mark.parametrize(("text", "value"), MEANT)
def test_a_bare_number_counts_where_it_is_said_what_it_is(text: str, value: str) -> None:
    assert [text[one.start : one.end] for one in find(text) if one.kind == "national_id"] == [value]
    bare = value.replace(" ", "")
    assert [one.kind for one in find(f"order {bare}") if one.kind == "national_id"] == []
    wrong = text.replace(value, value[:-1] + ("1" if value[-1] != "1" else "2"))
    assert [one.kind for one in find(wrong) if one.kind == "national_id"] == []


def test_a_hardware_address_is_found() -> None:
    assert [one.kind for one in find("00:1A:2B:3C:4D:5E and 00-1a-2b-3c-4d-5f, not 00:1A:2B")] == ["mac", "mac"]
