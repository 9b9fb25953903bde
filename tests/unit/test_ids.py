"""Ids of one process: version 7, in the order of their making, the same as bytes and as text."""

from __future__ import annotations

import subprocess
import sys
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
    assert len({raw[8:] for raw in made}) == len(made), "none ends as another"
    assert all(UUID(bytes=raw).version == 7 and UUID(bytes=raw).variant == "specified in RFC 4122" for raw in made)


FORKS = """
import os, sys
from groundplan.core.ids import new_id_bytes
new_id_bytes()
child = os.fork()
sys.stdout.buffer.write(b"".join(new_id_bytes()[8:] for _ in range(500)))
sys.stdout.buffer.flush()
os._exit(0) if not child else os.waitpid(child, 0)
"""


def test_a_forked_process_makes_ids_of_its_own() -> None:
    told = subprocess.run([sys.executable, "-c", FORKS], check=True, capture_output=True).stdout
    assert len({told[at : at + 8] for at in range(0, len(told), 8)}) == 1000
