"""The check of an API key takes the same steps whatever is sent, and has no secret to be compared piece by piece."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from groundplan.core.errors import Unauthenticated
from groundplan.gateway.call.identify import check_key, find_key
from groundplan.gateway.policy.snapshot import EMPTY_POLICY, KeyEntry

SECRET = b"gp_0123456789abcdef0123456789abcdef"
OTHER = b"gp_fedcba9876543210fedcba9876543210"
KEYS = {
    hashlib.sha256(each).digest(): KeyEntry("k", "w", "", acts_for_others=False, revoked=False, expires=None)
    for each in (SECRET, OTHER)
}
POLICY = replace(EMPTY_POLICY, keys=KEYS)
CHECKED = {find_key.__code__.co_filename, Unauthenticated.__init__.__code__.co_filename}


def steps(sent: bytes) -> list[tuple[str, int]]:
    """Every line that the check of an unknown key runs through; a collection of garbage may come between them."""
    seen: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and frame.f_code.co_filename in CHECKED:
            seen.append((frame.f_code.co_name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(Unauthenticated):
            find_key({b"authorization": b"Bearer " + sent}, POLICY, 0.0)
    finally:
        sys.settrace(before)
    return seen


def test_a_key_is_read_where_each_client_sends_it_and_the_first_one_counts() -> None:
    for name in (b"x-api-key", b"api-key"):
        assert find_key({name: SECRET}, POLICY, 0.0).id == "k"
        with pytest.raises(Unauthenticated):
            find_key({name: SECRET, b"authorization": b"Bearer no"}, POLICY, 0.0)
    with pytest.raises(Unauthenticated):
        find_key({b"api-key": SECRET, b"x-api-key": b"no"}, POLICY, 0.0)
    assert find_key({b"authorization": b"bearer  " + SECRET}, POLICY, 0.0).id == "k"
    for sent, told in (
        (b"Basic " + SECRET, "Bearer"),
        (SECRET, "Bearer"),
        (b"Bearer ", "no API key"),
        (b"", "no API key"),
    ):
        with pytest.raises(Unauthenticated, match="key_missing") as caught:
            find_key({b"authorization": sent}, POLICY, 0.0)
        assert told in caught.value.message


@pytest.mark.parametrize(
    ("more", "code"),
    [({"revoked": True}, "key_revoked"), ({"expires": 10.0}, "key_expired"), ({"person": "gone"}, "key_user_inactive")],
)
def test_an_existing_key_may_be_unusable(more: dict[str, Any], code: str) -> None:
    key = KeyEntry("k", "w", "ana", acts_for_others=False, revoked=False, expires=10.1)
    policy = replace(EMPTY_POLICY, active=frozenset({"ana"}))
    check_key(key, policy, 10.0)
    with pytest.raises(Unauthenticated, match=code):
        check_key(replace(key, **more), policy, 10.0)


def test_a_nearly_correct_key_takes_the_same_steps_as_any_other() -> None:
    assert find_key({b"authorization": b"Bearer " + SECRET}, POLICY, 0.0).id == "k"
    wrong = [
        SECRET[:-1] + b"0",
        b"x" + SECRET[1:],
        b"x" * len(SECRET),
        SECRET[:10],
        SECRET + b"0",
        OTHER[:17] + SECRET[17:],
    ]
    first, *others = [steps(sent) for sent in wrong]
    assert first and all(other == first for other in others)


def test_keys_are_looked_up_by_a_digest() -> None:
    told = repr(POLICY).encode()
    assert SECRET not in told and SECRET[3:] not in told
    assert all(len(known) == hashlib.sha256().digest_size for known in POLICY.keys)
