"""What holds for a document: nothing that it says of itself opens it further, and every value says where it is from."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from groundplan.catalog.governed import ConnectorRule
from groundplan.catalog.levels import SENSITIVITIES
from groundplan.core.errors import Invalid
from groundplan.knowledge.governance.inherit import STATES, Level, effective_values, parse_declared
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.text import parse_mapping
from groundplan.knowledge.sources.acl import parse_acl

_days = st.integers(0, 400).map(lambda n: date(2026, 1, 1) + timedelta(days=n))
_names = st.lists(st.sampled_from("abc"), unique=True, max_size=3).map(sorted)
_level = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(STATES), "sensitivity": st.sampled_from(SENSITIVITIES), "purposes": _names,
        "workloads": _names, "valid_from": _days, "valid_until": _days, "legal_hold": st.booleans(),
        "owner": st.sampled_from(["a@x.example", "b@x.example"]), "review_days": st.integers(1, 900),
    },
)  # fmt: skip


def held(*levels: dict[str, Any], decided: dict[str, Any] | None = None, digest: str = "d") -> dict[str, Any]:
    named = [
        Level(origin, values) for origin, values in zip(("source/s", "folder/f", "document"), levels, strict=False)
    ]
    return dict(effective_values(named, decided or {}, digest).values)


@given(_level, _level, _level)
def test_no_level_below_the_source_widens_anything(
    source: dict[str, Any], folder: dict[str, Any], own: dict[str, Any]
) -> None:
    above, below = held(source), held(source, folder, own)
    assert SENSITIVITIES.index(below["sensitivity"]) >= SENSITIVITIES.index(above["sensitivity"])
    assert below["state"] != "approved" or {above["state"], *[x.get("state", "approved") for x in (folder, own)]} == {
        "approved"
    }
    assert below["legal_hold"] or not above["legal_hold"]
    for name in ("purposes", "workloads"):
        if above[name] is not None:
            assert below[name] is not None
            assert set(below[name]) <= set(above[name])
    for name, stricter in (("valid_from", max), ("valid_until", min), ("review_days", min)):
        if above[name] is not None:
            assert below[name] == stricter(below[name], above[name])


@given(_level, _level, _level)
def test_every_value_says_where_it_is_from(source: dict[str, Any], folder: dict[str, Any], own: dict[str, Any]) -> None:
    named = [Level("source/s", source), Level("folder/f", folder), Level("document", own)]
    found = effective_values(named, {}, "d")
    for name, origin in found.origins.items():
        if origin["from"] == "default":
            continue
        level = next(each for each in named if each.origin == origin["from"])
        assert name in level.values
        if name not in ("purposes", "workloads"):
            assert level.values[name] == found.values[name]


def test_a_decision_stands_above_and_an_approval_is_about_one_content() -> None:
    source, own = {"state": "draft", "sensitivity": "internal"}, {"sensitivity": "confidential"}
    approval = {"state": {"value": "approved", "by": "dana@x.example", "digest": "d"}}
    assert held(source, {}, own, decided=approval)["state"] == "approved"
    assert held(source, {}, own, decided=approval, digest="other")["state"] == "draft"
    rejected = {"state": {"value": "rejected", "by": "dana@x.example", "digest": "d"}}
    assert held({}, {}, {}, decided=rejected, digest="other")["state"] == "rejected"
    opened = {"sensitivity": {"value": "public", "by": "dana@x.example"}}
    assert held(source, {}, own, decided=opened)["sensitivity"] == "public"


def test_what_is_wider_is_told_and_not_followed() -> None:
    found = effective_values(
        [Level("source/s", {"sensitivity": "restricted"}), Level("document", {"sensitivity": "public"})], {}, "d"
    )
    assert found.values["sensitivity"] == "restricted"
    assert found.origins["sensitivity"]["ignored"] == ["document says public, which is wider"]


@pytest.mark.parametrize(
    "text",
    [
        "owner: nobody",
        "owner: [a@x.example]",
        "steward: 3",
        "state: fine",
        "sensitivity: high",
        "purposes: support",
        "workloads: [1]",
        "valid_from: soon",
        "valid_until: later",
        "review_every: often",
        "retain: 3",
        "legal_hold: 1",
        "readers: everyone",
        "deny: x",
        "review_by: 3",
        "licence: []",
        "supersedes: [1]",
    ],
)
def test_what_is_not_understood_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_declared(parse_mapping(text, "front matter"), "front matter")
    assert caught.value.hint
    assert text.partition(":")[0] in caught.value.message


def test_keys_that_look_like_one_of_ours_are_told_and_others_are_let_be() -> None:
    told = {
        "superseeds": "Ana",
        "reveiw_by": "x",
        "tags": ["a"],
        "author": "Ana",
        "page_author": "B",
        "leaders": ["Ana"],
    }
    assert parse_declared({**told, "headers": True}, "x").unknown == {
        "superseeds": "supersedes", "reveiw_by": "review_by", "leaders": "readers", "headers": "readers",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("Readers", "readers"), ("READERS", "readers"), ("reader", "readers"), ("raeders", "readers"),
        ("readers ", "readers"), ("Deny", "deny"), ("Sensitivity", "sensitivity"), ("sensitvity", "sensitivity"),
    ],
)  # fmt: skip
def test_a_misspelt_word_about_who_may_read_closes_the_document(key: str, meant: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_declared({key: ["hr"]}, "front matter")
    assert caught.value.code == "front_matter"
    assert f"`{meant}`" in (caught.value.hint or "")


def test_access_lists_are_read_as_the_kernel_does() -> None:
    text = """# file: a\\040b.md
# owner: Ana@acme.example
# group: hr
user::rw-
user:ben@acme.example:r--   #effective:---
group::r--
mask::---
other::---

# file: open.md
# owner: root
# group: root
user::rw-
group::r--
other::r--
default:user::rwx
"""
    lists = parse_acl(text)
    private = lists.readers("a b.md")
    assert private is not None
    assert (set(private.allow), set(private.deny)) == ({"ana@acme.example"}, {"ben@acme.example"})
    everyone = lists.readers("open.md")
    assert everyone is not None
    assert "everyone" in everyone.allow
    assert lists.readers("unlisted.md") is None


@pytest.mark.parametrize("name", ["pay.md ", "pay\u2028.md", "pay\x0c.md", " pay.md", "pay\x85"])
def test_a_file_of_any_name_has_its_own_access_list(name: str) -> None:
    """Spaces at its end, and signs at which only some programs begin a line: it is none of the folder's own list."""
    whole = "# file: {}\n# owner: root\n# group: {}\nuser::rwx\ngroup::r-x\nother::{}\n\n"
    lists = parse_acl(whole.format(".", "root", "r-x") + whole.format(name, "hr", "---"))
    assert lists.readers(name) == Readers(frozenset({"hr"}), frozenset())


@pytest.mark.parametrize(
    ("type_", "url", "right"),
    [
        ("git", "https://git.example/handbook", True), ("git", "/etc", False), ("git", "file:///etc", False),
        ("git", "ext::sh", False), ("web", "https://docs.example/", True), ("web", "ftp://docs.example/", False),
        ("store", "s3://docs/in", True), ("store", "file:///etc", False), ("store", "LOCAL:///etc", False),
        ("store", "zip://x::file:///etc/a.zip", False), ("store", "docs", False),
    ],
)  # fmt: skip
def test_a_connector_does_not_read_this_machine(type_: str, url: str, right: bool) -> None:
    if right:
        assert ConnectorRule(type=type_, url=url).settings() == {"url": url}  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match="write an address"):
        ConnectorRule(type=type_, url=url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "git"},
        {"type": "sql", "table": "t"},
        {"type": "sql", "table": "t", "path": "a", "dsn": "env:X"},
        {"type": "mail"},
    ],
)
def test_a_connector_needs_what_its_type_needs(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs"):
        ConnectorRule(**settings)
    assert ConnectorRule(type="push").settings() == {}


def test_who_the_grantees_of_s3_are_is_declared_for_s3_only() -> None:
    rule = ConnectorRule(type="store", url="s3://docs/in", acl={"AllUsers": "public", "79a59df9": "hr"})
    assert rule.settings() == {"url": "s3://docs/in"}, "it has a place of its own in the blueprint"
    with pytest.raises(ValidationError, match="S3"):
        ConnectorRule(type="store", url="sftp://host/in", acl={})
    with pytest.raises(ValidationError):
        ConnectorRule(type="store", url="s3://docs/in", acl={"two words": "hr"})


def test_who_is_refused_among_readers_is_refused_as_in_a_readers_file() -> None:
    """It was taken for a reader of that name, who is nobody, and whoever else let them in did."""
    told = parse_declared({"readers": ["hr", "!Ben@acme.example"], "deny": ["interns"]}, "front matter")
    assert (told.readers, told.deny) == (frozenset({"hr"}), frozenset({"ben@acme.example", "interns"}))
    with pytest.raises(Invalid, match="readers"):
        parse_declared({"readers": ["hr", "! "]}, "front matter")
