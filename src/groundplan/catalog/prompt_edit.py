"""Replaces the text and version of a prompt in the files of a workspace; every other byte stays. Pure.

Finds the document by YAML's own marks and splices the text; the result is parsed again to check that it says what was
meant. Writes no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from groundplan.catalog.loader import load_files
from groundplan.core.errors import Invalid, NotFound


@dataclass(frozen=True, slots=True)
class _YamlDocument:
    file: str
    node: MappingNode


def replace_prompt(files: Mapping[str, str], name: str, text: str, version: int) -> dict[str, str]:
    """Replace text and version of the prompt `name`, also where workloads name its version; returns all files.

    Raises `NotFound` (`prompt_unknown`), and `Invalid` (`prompt_edit`) where it cannot be written in place.
    """
    found = [each for each in _documents(files) if _is_kind(each.node, "prompt") and _value(each.node, "name") == name]
    if not found:
        raise NotFound(
            f"there is no prompt {name}",
            code="prompt_unknown",
            hint="`groundplan prompts list` lists what is declared.",
        )
    made = dict(files)
    for file, source in files.items():
        edits = [_version_of(each.node, name, version) for each in _documents({file: source})]
        edits += [
            edit
            for each in found
            if each.file == file
            for edit in (_text_edit(source, each.node, text), _version_edit(each.node, version))
        ]
        for start, end, put in sorted((edit for edit in edits if edit is not None), reverse=True):
            made[file] = made[file][:start] + put + made[file][end:]
    read = load_files(made).prompts.get(name)
    if read is None or (read.text, read.version) != (text, version):
        raise Invalid(
            f"the prompt {name} cannot be written in place in {found[0].file}",
            code="prompt_edit",
            hint="Write its text and version into that file yourself, and apply.",
        )
    return made


def _documents(files: Mapping[str, str]) -> Iterator[_YamlDocument]:
    for file, source in files.items():
        if "prompt" not in source:
            continue
        try:
            nodes: list[Node] = list(YAML().compose_all(source))
        except YAMLError:
            continue  # the loader says what is wrong with it
        for node in nodes:
            if isinstance(node, MappingNode):
                yield _YamlDocument(file, node)


def _is_kind(node: MappingNode, kind: str) -> bool:
    return _value(node, "kind") == kind


def _entry(node: MappingNode, key: str) -> tuple[Node, Node] | None:
    return next(((k, v) for k, v in node.value if isinstance(k, ScalarNode) and k.value == key), None)


def _value(node: MappingNode, key: str) -> str | None:
    found = _entry(node, key)
    return str(found[1].value) if found is not None and isinstance(found[1], ScalarNode) else None


def _text_edit(source: str, node: MappingNode, text: str) -> tuple[int, int, str]:
    found = _entry(node, "text")
    assert found is not None, "the loader has read it"
    key, value = found
    start, end = value.start_mark.index, value.end_mark.index
    ends_line = source[start:end].endswith("\n")
    if node.flow_style or not _literal(text):
        return start, end, _quoted(text) + ("\n" if ends_line else "")
    pad = " " * (key.start_mark.column + 2)
    body = "".join(f"{pad}{line}\n" if line else "\n" for line in text.removesuffix("\n").split("\n"))
    return start, end, f"|{'' if text.endswith(chr(10)) else '-'}\n{body if ends_line else body.removesuffix(chr(10))}"


def _quoted(text: str) -> str:
    """Quote a text for YAML; characters that YAML refuses or takes for line ends are written by number."""
    said = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08X}" for each in said)


def _literal(text: str) -> bool:
    """Whether a literal block can hold exactly this text."""
    lines = text.split("\n")
    return (
        len(lines) > 1
        and not text.endswith("\n\n")
        and bool(lines[0].strip())
        and not lines[0].startswith(" ")
        and all(line == line.rstrip() and (line.isprintable() or not line) for line in lines)
    )


def _version_of(node: MappingNode, name: str, version: int) -> tuple[int, int, str] | None:
    """Edit of a workload that names a version of the prompt; None for other documents."""
    found = _entry(node, "prompt") if _is_kind(node, "workload") else None
    if found is None or not isinstance(found[1], ScalarNode) or not str(found[1].value).startswith(f"{name}@"):
        return None
    return found[1].start_mark.index, found[1].end_mark.index, f"{name}@{version}"


def _version_edit(node: MappingNode, version: int) -> tuple[int, int, str]:
    found = _entry(node, "version")
    if found is not None:
        mark = found[1]
        return mark.start_mark.index, mark.end_mark.index, str(version)
    first = node.value[0][0].start_mark
    after = ", " if node.flow_style else "\n" + " " * first.column
    return first.index, first.index, f"version: {version}{after}"
