"""One finding for personal data in many documents of a folder."""

from __future__ import annotations

from groundplan.knowledge.quality.grouped_findings import MAX_SINGLE, folder_of, group_findings, is_grouped
from groundplan.ledger.finding import Finding


def personal(path: str, owner: str = "ana@acme.example", kind: str = "personal_data") -> Finding:
    return Finding(
        kind=f"knowledge.{kind}", subject=f"source/s/{path}", message=f"{path} holds", hint="Take it out.",
        owner=owner, detail={"document": path, "counts": {"email": 2, "phone": 1}, "whose": [owner]},
        fix={"do": "sensitivity"},
    )  # fmt: skip


def test_each_folder_and_owner_has_its_own() -> None:
    mine = [personal(f"a/b/{n}.md") for n in range(MAX_SINGLE + 1)]
    others = [personal(f"a/b/x{n}.md", "ben@acme.example") for n in range(MAX_SINGLE + 2)]
    few = [personal(f"a/{n}.md") for n in range(MAX_SINGLE)]
    secrets = [personal(f"a/b/{n}.md", kind="secret") for n in range(MAX_SINGLE + 1)]
    kept, covered = group_findings("s", [*mine, *others, *few, *secrets])
    assert [each for each in kept if not is_grouped(each)] == [*secrets, *few]
    assert covered == [each.subject for each in (*mine, *others)]
    one, other = (each for each in kept if is_grouped(each))
    assert (one.subject, one.owner, other.owner) == ("source/s/a/b/", "ana@acme.example", "ben@acme.example")
    assert len({each.identity for each in (one, other)}) == 2
    assert one.message == (
        f"{MAX_SINGLE + 1} documents in a/b of s are public or internal and hold personal data: "
        f"{2 * (MAX_SINGLE + 1)} e-mail addresses, {MAX_SINGLE + 1} phone numbers"
    )
    assert "documents" in one.detail and str(mine[0].detail["document"]) not in str(one.detail), "no names are kept"


def test_where_a_finding_about_all_of_a_folder_is() -> None:
    assert folder_of("source/s/m.eml") == "source/s"
    assert folder_of("source/s/a/b/m.eml") == "source/s/a/b/"
