"""Ids of one process: version 7, in the order of their making, the same as bytes and as text."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.ids import id_text, new_id, new_id_bytes


@given(raw=st.binary(min_size=16, max_size=16))
def test_the_text_of_an_id_is_that_of_its_uuid(raw: bytes) -> None:
    assert id_text(raw) == str(UUID(bytes=raw))


def test_ids_of_both_kinds_sort_in_the_order_they_were_made() -> None:
    made = [new_id().bytes if number % 3 else new_id_bytes() for number in range(5000)]
    assert made == sorted(set(made)), "none is made twice"
    assert all(UUID(bytes=raw).version == 7 and UUID(bytes=raw).variant == "specified in RFC 4122" for raw in made)
