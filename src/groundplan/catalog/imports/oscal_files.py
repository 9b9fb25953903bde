"""The parts of OSCAL's documents (NIST, JSON) that name controls, read from text. Types and reading only.

Of each document only what says which controls there are is read; what else stands there may be anything. OSCAL's XML
and YAML are not read: its publishers give the JSON beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from groundplan.core.errors import Invalid, TooLarge, Where

MAX_BYTES = 32 << 20
NAMESPACE = "urn:groundplan:oscal"
"""Of properties that say what OSCAL has no word for, such as which checks a control needs."""


class Prop(Struct, frozen=True):
    name: str
    value: str
    ns: str = ""
    group: str = ""


class Param(Struct, frozen=True):
    id: str
    label: str = ""
    values: tuple[str, ...] = ()


class SetParam(Struct, frozen=True, rename="kebab"):
    param_id: str
    label: str = ""
    values: tuple[str, ...] = ()


class Control(Struct, frozen=True, rename={"class_": "class"}):
    id: str
    title: str
    class_: str = ""
    params: tuple[Param, ...] = ()
    props: tuple[Prop, ...] = ()
    controls: tuple[Control, ...] = ()


class Group(Struct, frozen=True):
    title: str = ""
    params: tuple[Param, ...] = ()
    groups: tuple[Group, ...] = ()
    controls: tuple[Control, ...] = ()


class Metadata(Struct, frozen=True):
    title: str
    props: tuple[Prop, ...] = ()


class Link(Struct, frozen=True):
    href: str


class Resource(Struct, frozen=True):
    uuid: str
    rlinks: tuple[Link, ...] = ()


class BackMatter(Struct, frozen=True):
    resources: tuple[Resource, ...] = ()


class Catalog(Struct, frozen=True, rename="kebab"):
    uuid: str
    metadata: Metadata
    params: tuple[Param, ...] = ()
    groups: tuple[Group, ...] = ()
    controls: tuple[Control, ...] = ()


class Matching(Struct, frozen=True):
    pattern: str = "*"


class Selected(Struct, frozen=True, rename="kebab"):
    with_ids: tuple[str, ...] = ()
    matching: tuple[Matching, ...] = ()
    with_child_controls: str = "no"


class Import(Struct, frozen=True, rename="kebab"):
    href: str
    include_all: dict[str, Any] | None = None
    include_controls: tuple[Selected, ...] = ()
    exclude_controls: tuple[Selected, ...] = ()


class Modify(Struct, frozen=True, rename="kebab"):
    set_parameters: tuple[SetParam, ...] = ()


class Profile(Struct, frozen=True, rename="kebab"):
    uuid: str
    metadata: Metadata
    imports: tuple[Import, ...]
    modify: Modify = Modify()
    back_matter: BackMatter = BackMatter()


class Requirement(Struct, frozen=True, rename="kebab"):
    control_id: str
    description: str
    props: tuple[Prop, ...] = ()
    set_parameters: tuple[SetParam, ...] = ()


class Implementation(Struct, frozen=True, rename="kebab"):
    source: str
    implemented_requirements: tuple[Requirement, ...]
    set_parameters: tuple[SetParam, ...] = ()


class Component(Struct, frozen=True, rename="kebab"):
    title: str = ""
    name: str = ""
    """Of a capability, which has no title."""
    control_implementations: tuple[Implementation, ...] = ()


class ComponentDefinition(Struct, frozen=True, rename="kebab"):
    uuid: str
    metadata: Metadata
    components: tuple[Component, ...] = ()
    capabilities: tuple[Component, ...] = ()
    back_matter: BackMatter = BackMatter()


class Named(Struct, frozen=True, rename="kebab"):
    control_id: str


class Selection(Struct, frozen=True, rename="kebab"):
    include_controls: tuple[Named, ...] = ()


class Reviewed(Struct, frozen=True, rename="kebab"):
    control_selections: tuple[Selection, ...]


class Plan(Struct, frozen=True, rename="kebab"):
    uuid: str
    metadata: Metadata
    reviewed_controls: Reviewed


class Result(Struct, frozen=True, rename="kebab"):
    reviewed_controls: Reviewed


class Results(Struct, frozen=True, rename="kebab"):
    uuid: str
    metadata: Metadata
    results: tuple[Result, ...]


class Document(Struct, frozen=True, rename="kebab"):
    """One file; exactly one of these."""

    catalog: Catalog | None = None
    profile: Profile | None = None
    component_definition: ComponentDefinition | None = None
    assessment_plan: Plan | None = None
    assessment_results: Results | None = None
    system_security_plan: Any = None
    plan_of_action_and_milestones: Any = None


Root = Catalog | Profile | ComponentDefinition | Plan | Results
_READ = "a catalog, a profile, a component definition, an assessment plan or assessment results"
_decoder = msgspec.json.Decoder(Document)


def parse_documents(files: Mapping[str, str]) -> dict[str, Root]:
    """File name -> its document. Raises `Invalid` (`import_oscal`) with the file and the place in it, `TooLarge`."""
    if sum(map(len, files.values())) > MAX_BYTES:
        raise TooLarge(
            "the documents are too large", code="import_large", hint="At most 32 MiB are read: leave some out."
        )
    return {name: _root(name, text) for name, text in files.items()}


def _root(name: str, text: str) -> Root:
    try:
        found = _decoder.decode(text)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$.")
        raise _invalid(f"{what} at {place.rstrip('`')}" if place else what, name) from error
    except msgspec.DecodeError as error:
        raise _invalid(f"this is no JSON: {error}", _error_position(name, text, str(error))) from error
    except RecursionError as error:
        raise _invalid("it is nested too deeply", name) from error
    named = [getattr(found, field) for field in Document.__struct_fields__]
    read_ = [each for each in named if each is not None]
    if len(read_) != 1:
        raise _invalid(f"this is not one document of OSCAL, such as {_READ}", name)
    if not isinstance(read_[0], Root):
        kind = "plan of action and milestones" if found.system_security_plan is None else "system security plan"
        raise _invalid(f"a {kind} selects no controls", name)
    return read_[0]


def _invalid(what: str, where: str | Where) -> Invalid:
    hint = f"Give the JSON of {_READ}."
    return Invalid(what, code="import_oscal", hint=hint, where=where)


def _error_position(name: str, text: str, error: str) -> str | Where:
    """The position of `(byte N)` in a decoding error; the file's name if there is none."""
    at = error.rpartition("(byte ")[2].rstrip(")")
    if not at.isdigit():
        return name
    before = text.encode("utf-8", "surrogatepass")[: int(at)]
    return Where(name, before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
