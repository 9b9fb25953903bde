"""Replaces the text and version of a prompt in the files of a workspace; every other byte stays. Pure.

Finds the document by the parser's marks and splices the text; the result is parsed again to check that it has the
intended values. Writes no file.
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
    """Replace text and version of the prompt `name`, and its version in workloads that name it; returns all files.

    Raises `NotFound` (`prompt_unknown`), and `Invalid` (`prompt_edit`) if the prompt cannot be edited in place.
    """
    prompts = [
        document
        for document in _documents(files)
        if _is_kind(document.node, "prompt") and _scalar(document.node, "name") == name
    ]
    if not prompts:
        raise NotFound(
            f"there is no prompt {name}",
            code="prompt_unknown",
            hint="`groundplan prompts list` lists what is declared.",
        )
    edited = dict(files)
    for file, source in files.items():
        edits = [_reference_edit(document.node, name, version) for document in _documents({file: source})]
        edits += [
            edit
            for document in prompts
            if document.file == file
            for edit in (_text_edit(source, document.node, text), _version_edit(document.node, version))
        ]
        for start, end, replacement in sorted((edit for edit in edits if edit is not None), reverse=True):
            edited[file] = edited[file][:start] + replacement + edited[file][end:]
    parsed = load_files(edited).prompts.get(name)
    if parsed is None or (parsed.text, parsed.version) != (text, version):
        raise Invalid(
            f"the prompt {name} cannot be written in place in {prompts[0].file}",
            code="prompt_edit",
            hint="Write its text and version into that file yourself, and apply.",
        )
    return edited


def _documents(files: Mapping[str, str]) -> Iterator[_YamlDocument]:
    for file, source in files.items():
        if "prompt" not in source:
            continue
        try:
            nodes: list[Node] = list(YAML().compose_all(source))
        except YAMLError:
            continue  # the loader reports what is wrong with this file
        for node in nodes:
            if isinstance(node, MappingNode):
                yield _YamlDocument(file, node)


def _is_kind(node: MappingNode, kind: str) -> bool:
    return _scalar(node, "kind") == kind


def _entry(node: MappingNode, key: str) -> tuple[Node, Node] | None:
    return next(((k, v) for k, v in node.value if isinstance(k, ScalarNode) and k.value == key), None)


def _scalar(node: MappingNode, key: str) -> str | None:
    entry = _entry(node, key)
    return str(entry[1].value) if entry is not None and isinstance(entry[1], ScalarNode) else None


def _text_edit(source: str, node: MappingNode, text: str) -> tuple[int, int, str]:
    entry = _entry(node, "text")
    assert entry is not None, "the loader has read it"
    key, value = entry
    start, end = value.start_mark.index, value.end_mark.index
    ends_line = source[start:end].endswith("\n")
    if node.flow_style or not _fits_literal_block(text):
        return start, end, _quoted(text) + ("\n" if ends_line else "")
    indent = " " * (key.start_mark.column + 2)
    body = "".join(f"{indent}{line}\n" if line else "\n" for line in text.removesuffix("\n").split("\n"))
    return start, end, f"|{'' if text.endswith(chr(10)) else '-'}\n{body if ends_line else body.removesuffix(chr(10))}"


def _quoted(text: str) -> str:
    """Quote a text for YAML; characters that YAML refuses or treats as line ends are written as escapes."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else f"\\U{ord(character):08X}" for character in quoted)


def _fits_literal_block(text: str) -> bool:
    """Whether a literal block can hold exactly this text."""
    lines = text.split("\n")
    return (
        len(lines) > 1
        and not text.endswith("\n\n")
        and bool(lines[0].strip())
        and not lines[0].startswith(" ")
        and all(line == line.rstrip() and (line.isprintable() or not line) for line in lines)
    )


def _reference_edit(node: MappingNode, name: str, version: int) -> tuple[int, int, str] | None:
    """Edit of the version in a workload that names one of the prompt; None for other documents."""
    entry = _entry(node, "prompt") if _is_kind(node, "workload") else None
    if entry is None or not isinstance(entry[1], ScalarNode) or not str(entry[1].value).startswith(f"{name}@"):
        return None
    return entry[1].start_mark.index, entry[1].end_mark.index, f"{name}@{version}"


def _version_edit(node: MappingNode, version: int) -> tuple[int, int, str]:
    entry = _entry(node, "version")
    if entry is not None:
        value = entry[1]
        return value.start_mark.index, value.end_mark.index, str(version)
    start = node.value[0][0].start_mark
    separator = ", " if node.flow_style else "\n" + " " * start.column
    return start.index, start.index, f"version: {version}{separator}"
