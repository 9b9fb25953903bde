"""The bytes of an audit entry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.audit.entry import (
    MAX_BYTES,
    OPERATOR,
    Acting,
    ActingAs,
    Entry,
    acting_as,
    decode,
    gateway_actor,
    person_actor,
)
from groundplan.core.errors import Invalid

ID = UUID("01938f5e-0000-7000-8000-000000000001")
AT = datetime(2026, 11, 25, 12, 0, 0, 5, tzinfo=UTC)


def entry(**changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "id": ID,
        "at": AT,
        "action": "kill",
        "actor": OPERATOR,
        "subject": "company",
        "detail": {},
    }
    return Entry(**{**fields, **changes})


def test_the_bytes_are_canonical_json() -> None:
    assert (
        entry(detail={"b": 1, "a": "é"}).encode()
        == (
            '{"action":"kill","actor":"operator","at":"2026-11-25T12:00:00.000005Z","detail":{"a":"é","b":1},'
            '"id":"01938f5e-0000-7000-8000-000000000001","subject":"company"}'
        ).encode()
    )


def test_the_zone_does_not_change_the_bytes() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert entry(at=elsewhere).encode() == entry().encode()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("abc"), children, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abcé"), JSON, max_size=4))
def test_what_is_encoded_is_read_back(detail: dict[str, Any]) -> None:
    made = entry(detail=detail)
    assert decode(made.encode()) == made
    assert decode(made.encode()).encode() == made.encode()


@given(st.binary())
def test_bytes_that_are_no_entry_are_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        decode(data)
    assert caught.value.code == "audit_unreadable"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"actor": "root"}, "audit_actor"),
        ({"actor": "person:me"}, "audit_actor"),
        ({"acting": Acting("root")}, "audit_actor"),
        ({"acting": Acting(OPERATOR, "me")}, "audit_actor"),
        ({"at": datetime(2026, 1, 1)}, "audit_time"),  # noqa: DTZ001 -- a time without a zone is the point
        ({"detail": {"n": 2**53 + 1}}, "audit_detail"),
        ({"detail": {"n": float("nan")}}, "audit_detail"),
        ({"detail": {"n": ID}}, "audit_detail"),
        ({"detail": {"n": "\ud800"}}, "audit_detail"),
        ({"detail": {"n": "x" * MAX_BYTES}}, "audit_too_large"),
    ],
)
def test_what_cannot_be_recorded_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        entry(**changes).encode()
    assert caught.value.code == code and caught.value.hint


def test_actors_of_people_and_gateways_are_accepted() -> None:
    for actor in (person_actor(ID), gateway_actor(ID)):
        assert decode(entry(actor=actor).encode()).actor == actor


def test_acting_as_somebody_is_a_field_of_its_own() -> None:
    actor = ActingAs(person_actor(ID), OPERATOR)
    assert actor == person_actor(ID) and acting_as(actor) == Acting(OPERATOR) and acting_as(str(actor)) is None
    made = entry(actor=str(actor), acting=acting_as(actor))
    assert made.encode().startswith(b'{"acting":{"by":"operator","demo":true},"action":"kill","actor":"person:')
    assert decode(made.encode()) == made
    call = entry(actor=gateway_actor(ID), acting=Acting(OPERATOR, person_actor(ID)))
    assert decode(call.encode()) == call and b'"as":"person:' in call.encode()


@pytest.mark.parametrize("acting", ['"operator"', '{"by":"operator"}', '{"by":"operator","demo":false}', "null"])
def test_acting_that_is_not_understood_is_refused(acting: str) -> None:
    with pytest.raises(Invalid):
        decode(entry().encode().replace(b'{"action"', b'{"acting":' + acting.encode() + b',"action"', 1))
