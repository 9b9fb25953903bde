"""Controls in OSCAL: others' documents become frameworks, ours come back as they were, errors say file and place."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trestle.oscal.catalog import Model as CatalogModel
from trestle.oscal.component import Model as ComponentModel
from trestle.oscal.profile import Model as ProfileModel
from typer.testing import CliRunner

from groundplan.catalog.frameworks import FrameworkDoc
from groundplan.catalog.imports.oscal import ImportedFrameworks, import_oscal
from groundplan.catalog.loader import load_files
from groundplan.cli.main import app
from groundplan.core.errors import GroundplanError, Invalid, TooLarge
from groundplan.governance.controls.declared import problems
from groundplan.governance.controls.oscal_declared import Document, oscal_document
from groundplan.governance.controls.shipped import apply_framework

OWNER = "sam@acme.example"
META = {"title": "House Controls", "last-modified": "2026-01-01T00:00:00Z", "version": "1", "oscal-version": "1.1.2"}
CATALOG: dict[str, Any] = {
    "catalog": {
        "uuid": "74c8ba1e-5cd4-4ad1-bbfd-d888e2f6c724",
        "metadata": META,
        "groups": [
            {
                "title": "Access",
                "groups": [{"title": "Inner", "controls": [{"id": "ia-1", "title": "Know who it is"}]}],
                "controls": [
                    {
                        "id": "ac-1",
                        "title": "Review within {{ insert: param, ac-1_prm }}",
                        "params": [{"id": "ac-1_prm", "label": "a time"}],
                        "controls": [
                            {"id": "ac-1.1", "title": "Review by two"},
                            {"id": "ac-1.2", "title": "Gone", "props": [{"name": "status", "value": "withdrawn"}]},
                        ],
                    }
                ],
            }
        ],
        "controls": [{"id": "zz-9", "title": "Last"}],
    }
}


def profile(**selection: Any) -> dict[str, Any]:
    uuid = "74c8ba1e-5cd4-4ad1-bbfd-d888e2f6c725"
    chosen = {"href": "#res", **selection}
    setting = {"set-parameters": [{"param-id": "ac-1_prm", "values": ["90 days"]}]}
    back = {"resources": [{"uuid": "res", "rlinks": [{"href": "../cat/catalog.xml"}]}]}
    return {"profile": {"uuid": uuid, "metadata": META, "imports": [chosen], "modify": setting, "back-matter": back}}


def read(**documents: Any) -> ImportedFrameworks:
    files = {f"{name}.json": json.dumps(each, indent=1) for name, each in documents.items()}
    return import_oscal(files, OWNER)


def framework(found: ImportedFrameworks) -> FrameworkDoc:
    """What a workspace makes of it, and nothing is wrong with that."""
    people = f"---\nkind: person\nname: sam\nemail: {OWNER}\nfull_name: Sam\n"
    workspace = load_files({"a.yaml": f"kind: company\nname: acme\nformat: 1\n{people}", "f.yaml": found.text})
    assert problems(workspace) == []
    (doc,) = workspace.frameworks.values()
    return doc


def titles(found: ImportedFrameworks) -> dict[str, str]:
    return {each.id: each.title for each in framework(found).controls}


def test_a_catalog_is_a_framework_whose_controls_people_show() -> None:
    found = read(catalog=CATALOG)
    doc = framework(found)
    assert (doc.name, doc.title, doc.owner) == ("house-controls", "House Controls", OWNER)
    assert titles(found) == {
        "zz-9": "Last", "ac-1": "Review within [a time]", "ac-1.1": "Review by two", "ia-1": "Know who it is"
    }  # fmt: skip
    assert all(each.needs == ("document",) for each in doc.controls)
    (gone,) = found.findings
    assert (gone.what, gone.state, gone.where.file) == ("ac-1.2", "no_equal", "catalog.json")
    assert '"ac-1.2"' in json.dumps(CATALOG, indent=1).splitlines()[gone.where.line - 1]


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        ({"include-all": {}}, {"ac-1", "ac-1.1", "ia-1", "zz-9"}),
        ({}, {"ac-1", "ac-1.1", "ia-1", "zz-9"}),
        ({"include-controls": [{"with-ids": ["ac-1"]}]}, {"ac-1"}),
        ({"include-controls": [{"with-ids": ["ac-1"], "with-child-controls": "yes"}]}, {"ac-1", "ac-1.1"}),
        ({"include-controls": [{"matching": [{"pattern": "?[ac]-*"}]}]}, {"ac-1", "ac-1.1", "ia-1"}),
        ({"include-all": {}, "exclude-controls": [{"with-ids": ["ac-1", "zz-9"]}]}, {"ac-1.1", "ia-1"}),
    ],
)
def test_a_profile_selects_of_its_catalog_and_sets_parameters(selection: dict[str, Any], ids: set[str]) -> None:
    found = titles(read(catalog=CATALOG, own=profile(**selection)))
    assert set(found) == ids
    assert found.get("ac-1", "Review within [90 days]") == "Review within [90 days]"


def test_a_component_definition_brings_its_controls_with_the_titles_of_what_it_implements() -> None:
    made = [{"control-id": "ia-1", "description": "We know.  It is logged."}]
    implementation = {"source": "#res", "description": "x", "implemented-requirements": made}
    component = {"title": "Sign-in", "control-implementations": [implementation]}
    back = profile()["profile"]["back-matter"]
    document = {"component-definition": {"uuid": "c", "metadata": META, "components": [component], "back-matter": back}}
    assert titles(read(catalog=CATALOG, parts=document)) == {"ia-1": "Know who it is"}
    alone = read(parts=document)
    assert titles(alone) == {"ia-1": "We know."}
    assert [(each.state, each.what) for each in alone.findings] == [("needed", "../cat/catalog.xml")]


def test_an_assessment_names_what_it_looks_at() -> None:
    reviewed = {"control-selections": [{"include-controls": [{"control-id": "ac-6.1"}]}]}
    found = read(plan={"assessment-plan": {"uuid": "p", "metadata": META, "reviewed-controls": reviewed}})
    assert titles(found) == {"ac-6.1": "ac-6.1"} and [each.state for each in found.findings] == ["needed"]


def import_errors(files: dict[str, str]) -> str:
    with pytest.raises(Invalid) as caught:
        import_oscal(files, OWNER)
    return "\n".join([str(caught.value), *map(str, caught.value.problems)])


def test_what_is_wrong_is_told_by_file_and_place() -> None:
    wrong = json.loads(json.dumps(CATALOG))
    wrong["catalog"]["groups"][0]["controls"][0]["id"] = 7
    text = import_errors({"c.json": json.dumps(wrong)})
    assert text.startswith("c.json: Expected `str`, got `int` at catalog.groups[0].controls[0].id")
    assert import_errors({"c.json": '{"catalog":\n  @}'}).startswith("c.json:2:3: this is no JSON")
    assert import_errors({"c.json": "{}"}).startswith("c.json: this is not one document of OSCAL")
    assert "a system security plan selects no controls" in import_errors({"c.json": '{"system-security-plan": {}}'})
    files = {"catalog.json": json.dumps(CATALOG, indent=1)}
    text = import_errors(
        {**files, "own.json": json.dumps(profile(**{"include-controls": [{"with-ids": ["ac-9"]}]}), indent=1)}
    )
    assert "own.json:" in text and "catalog.json has no control ac-9" in text
    text = import_errors({"own.json": json.dumps(profile(), indent=1)})
    assert "it imports ../cat/catalog.xml, which is not among the files" in text
    both = json.loads(json.dumps(CATALOG).replace("zz-9", "ac-1"))
    assert "the control ac-1 is there twice" in import_errors({"c.json": json.dumps(both, indent=1)})
    nested = json.dumps(CATALOG)[:-2] + ', "groups": [' + '{"groups": [' * 5_000 + "]}" * 5_000 + "]}}"
    assert "nested too deeply" in import_errors({"c.json": nested})


def test_profiles_that_import_each_other_end() -> None:
    one, two = profile(), profile()
    one["profile"]["imports"][0]["href"], two["profile"]["imports"][0]["href"] = "two.json", "one.json"
    assert "which imports it" in import_errors({"one.json": json.dumps(one), "two.json": json.dumps(two)})


def test_documents_that_import_each_other_many_times_are_read_once_each_and_too_large_ones_not() -> None:
    chain = {"catalog.json": json.dumps(CATALOG)}
    for i in range(60):  # 2^60 ways down
        made = profile()
        inner = "catalog.json" if i == 0 else f"p{i - 1}.json"
        made["profile"]["imports"] = [{"href": inner}, {"href": inner, "exclude-controls": [{"with-ids": ["zz-9"]}]}]
        chain[f"p{i}.json"] = json.dumps(made)
    assert len(framework(import_oscal(chain, OWNER)).controls) == 4
    wide = profile()
    wide["profile"]["imports"] = [{"href": "catalog.json"}] * 1_001
    for files in (
        {"catalog.json": json.dumps(CATALOG), "p.json": json.dumps(wide)},
        {"c.json": json.dumps({"catalog": {"uuid": "c", "metadata": META, "controls": [
            {"id": f"c-{i}", "title": "x", "props": [{"name": "status", "value": "withdrawn"}][: i % 2]}
            for i in range(50_000)]}})},
    ):  # fmt: skip
        with pytest.raises(TooLarge, match="import_large"):
            import_oscal(files, OWNER)


def test_ids_that_cannot_be_written_here_are_shortened_and_told() -> None:
    text = json.dumps(CATALOG).replace("zz-9", "_zz/" + "9" * 60)
    found = import_oscal({"c.json": text}, OWNER)
    assert framework(found).controls[0].id == "zz-" + "9" * 37
    assert [each.state for each in found.findings] == ["no_equal", "changed"]


NOW = datetime(2026, 11, 26, tzinfo=UTC)
LAW = {"on": date(2027, 3, 1), "what": "Duties begin", "source": "Regulation 1, Article 3", "controls": ["H 1"]}
OWN = FrameworkDoc.model_validate(
    {
        "name": "house-rules", "title": "House rules", "owner": OWNER, "workloads": ["support"], "amended": [LAW],
        "excluded": [{"control": "H 2", "reason": "Nobody asks: it is done elsewhere."}],
        "controls": [
            {"id": "H 1", "title": "It has a budget", "needs": ["budget.hard", "document"]},
            {"id": "H 2", "title": "A risk: assessed", "needs": ["risk.assessed"]},
        ],
    }
)  # fmt: skip
SHIPPED = FrameworkDoc.model_validate(
    {
        "name": "nist-ai-rmf", "owner": OWNER, "profile": "tier-1",
        "excluded": [{"control": "GOVERN 4.1", "reason": "The group's policy holds."}],
        "controls": [{"id": "N-1", "title": "Ours", "needs": ["document"]}],
    }
)  # fmt: skip


def exported(doc: FrameworkDoc, *documents: Document) -> dict[str, str]:
    one = apply_framework(doc, OWNER, ["support"], NOW.date())
    return {f"{each}.json": json.dumps(oscal_document(each, one, doc, "acme", NOW)) for each in documents}


@pytest.mark.parametrize("doc", [OWN, SHIPPED])
def test_what_is_exported_comes_back_as_it_was_declared(doc: FrameworkDoc) -> None:
    found = import_oscal(exported(doc, "profile", "catalog"), OWNER)
    people = f"---\nkind: person\nname: sam\nemail: {OWNER}\nfull_name: Sam\n"
    files = {"a.yaml": f"kind: company\nname: acme\nformat: 1\n{people}", "f.yaml": found.text}
    assert load_files(files).frameworks[doc.name] == doc
    assert found.findings == ()


@pytest.mark.parametrize("doc", [OWN, SHIPPED])
def test_others_read_what_is_exported(doc: FrameworkDoc) -> None:
    files = {
        name: json.loads(text) for name, text in exported(doc, "catalog", "profile", "component-definition").items()
    }
    catalog = CatalogModel.model_validate(files["catalog.json"]).catalog
    chosen = ProfileModel.model_validate(files["profile.json"]).profile
    made = ComponentModel.model_validate(files["component-definition.json"]).component_definition
    ids = {each.id for each in catalog.controls or ()}
    named = (files["profile.json"]["profile"]["imports"][0]["include-controls"])[0]["with-ids"]
    assert set(named) <= ids and f"#{catalog.uuid}" == chosen.imports[0].href
    implemented = files["component-definition.json"]["component-definition"]["components"][0]
    (one,) = implemented["control-implementations"]
    assert one["implemented-requirements"] and made.components
    assert all("document" not in each["description"] for each in one["implemented-requirements"])


WORDS = ["catalog", "uuid", "metadata", "title", "controls", "groups", "id", "profile", "imports", "href"]
ANY = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
)


@given(ANY)
def test_whatever_a_file_holds_the_answer_is_an_error_that_says_what_to_do(value: Any) -> None:
    try:
        import_oscal({"x.json": json.dumps(value)}, OWNER)
    except GroundplanError as error:
        assert error.hint and error.code == "import_oscal"


def test_the_command_writes_a_framework_and_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text(json.dumps(CATALOG))
    out = tmp_path / "framework.yaml"
    asked = ["import", "oscal", str(tmp_path / "catalog.json"), "--owner", OWNER, "--name", "house", "--to", str(out)]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["frameworks"] == {"house": 4} and out.read_text().startswith("---\n# from catalog")
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 75 or isinstance(again.exception, GroundplanError)
