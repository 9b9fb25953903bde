"""What placement is told wrongly is said with file and line before anything is planned."""

from __future__ import annotations

import pytest

from groundplan.catalog.check import validate_files
from groundplan.core.errors import Invalid

GOOD = """\
kind: company
name: acme
format: 1
---
kind: site
name: rack
type: private
jurisdiction: EU
hosting: {hardware: [{type: l40s, count: 2, owned: {purchase: 9500 USD}}]}
---
kind: deployment
name: own
site: rack
model: acme/m
url: http://127.0.0.1:9/v1
price: free
hosted: {hardware: l40s, units: 2}
---
kind: model
name: acme/m
weights: {total: 8.0, active: 8.0, at: [rack]}
---
kind: workload
name: chat
purpose: Answer questions
stage: proposed
objectives: {first_token: 800ms, complete: 5s}
placement: {users: {eu-north: 60%, eu-west: 40%}, models: [acme/m], data: {site: rack}, today: rack}
"""


def test_a_right_workspace_is_in_order() -> None:
    assert set(validate_files({"acme.yaml": GOOD}).workloads) == {"chat"}


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ("eu-west: 40%", "eu-west: 30%", "users_share", 28),
        ("today: rack", "today: moon", "unknown_site", 28),
        ("data: {site: rack}", "data: {site: moon}", "unknown_site", 28),
        ("models: [acme/m]", "models: [acme/n]", "unknown_model", 28),
        ("at: [rack]", "at: [moon]", "unknown_site", 21),
        ("active: 8.0", "active: 80.0", "weights_active", 21),
        ("hosted: {hardware: l40s", "hosted: {hardware: l4", "hosted_hardware", 17),
        ("complete: 5s", "complete: 500ms", "objectives_contradict", 27),
        ("purchase: 9500 USD", "purchase: -9500 USD", "", 9),
        ("count: 2", "count: -2", "", 9),
        ("eu-north: 60%", "eu-north: 160%", "", 28),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, code: str, line: int) -> None:
    assert old in GOOD
    with pytest.raises(Invalid) as refused:
        validate_files({"acme.yaml": GOOD.replace(old, new)})
    problems = refused.value.problems
    assert problems[0].where is not None and problems[0].where.line == line
    assert not code or problems[0].code == code
