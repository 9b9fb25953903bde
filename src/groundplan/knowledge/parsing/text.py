"""Reads plain text and Markdown with front matter, and JSON. Pure: bytes in, text out.

Front matter is YAML 1.2 between `---` lines at the very top. Its simplest forms are parsed without a YAML library,
which makes reading a thousand small documents quick.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from groundplan.core.errors import Invalid, TooLarge
from groundplan.knowledge.parsing.model import MAX_CHARACTERS, MAX_TEXT_BYTES, Table

_INVISIBLE = re.compile(
    # C0 and C1 controls except tab and line feed; soft hyphen, zero width space, direction marks and overrides, byte
    # order mark, line and paragraph separators, tags: text that a person does not see must not reach a model
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FRONT_MATTER_START = re.compile(r"(?P<above>\s*)---[ \t]*\n")
_RESTRICTING_KEY = re.compile(
    r"(?:readers|deny|state|sensitivity|purposes|workloads|residency|valid_from|valid_until|legal_hold)[ \t]*:"
)
_TOML = re.compile(r"\s*\+\+\+[ \t]*\n(?P<toml>.*?)^\+\+\+[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_RESTRICTING_TOML_KEY = re.compile(
    r"^[ \t]*" + _RESTRICTING_KEY.pattern.removesuffix(":") + "=", re.MULTILINE | re.IGNORECASE
)
_SIMPLE_TEXT = re.compile(
    r"(?P<key>[a-z_]{1,40}): +(?P<value>[A-Za-z][A-Za-z0-9 .,()'/@_+-]*[A-Za-z0-9.)]|[A-Za-z])[ \t]*"
)
_SIMPLE_DAY = re.compile(r"(?P<key>[a-z_]{1,40}): +(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})[ \t]*")
_SIMPLE_LIST = re.compile(r"(?P<key>[a-z_]{1,40}): +\[(?P<items>[A-Za-z0-9@._/-]+(?:, *[A-Za-z0-9@._/-]+)*)\][ \t]*")
_YAML_CONSTANTS = frozenset({"true", "false", "null", "nan", "inf"})
CHARACTERS_PER_NUL = 3
"""If more than one character in so many is NUL, the text has another encoding, such as UTF-16 without its mark: there
would be spaces between the letters of its words."""
MAX_NESTING = 40
MAX_VALUES = 20_000
"""Most values in front matter or in a sidecar file."""


@dataclass(frozen=True, slots=True)
class TextDocument:
    """The text of a document; `start` is the offset of its body, after the front matter."""

    text: str
    markdown: bool = False
    start: int = 0
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    links: tuple[str, ...] = ()
    """The links of a web page, as written."""
    pictures: int = 0
    """Number of pages that are pictures, whose text is missing."""


def clean(text: str) -> str:
    """The text with `\\n` as its line end and a space for each invisible character; the number of lines stays."""
    return _INVISIBLE.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))


def _clean_value(value: Any, left: list[int]) -> Any:
    """A YAML value with its texts `clean`ed. `left` holds the number of values that are still allowed, counted down
    here, since aliases can expand to more than memory holds."""
    left[0] -= 1
    if left[0] < 0:
        raise Invalid("it has values without end", code="front_matter", hint="Write them without aliases.")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean_value(item, left) for item in value]
    if isinstance(value, dict):
        return {clean(str(key)): _clean_value(item, left) for key, item in value.items()}
    return value


def printable(name: str) -> str:
    """A name that can be shown and stored: bytes that are not UTF-8 become backslash escapes."""
    try:
        return clean(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    except UnicodeEncodeError:
        return clean(name.encode("utf-8", "backslashreplace").decode())


def decode(data: bytes) -> str:
    """The cleaned text of UTF-8 bytes, or of UTF-16 with a byte order mark. Raises `Invalid` and `TooLarge`."""
    if len(data) > MAX_TEXT_BYTES:
        raise TooLarge(
            f"it is larger than {MAX_TEXT_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
        )
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Invalid(
            f"it is not UTF-8 (byte {error.start})", code="document_encoding", hint="Save it as UTF-8."
        ) from error
    if text.count("\0") * CHARACTERS_PER_NUL > len(text):
        raise Invalid("it is not UTF-8, or not text", code="document_encoding", hint="Save it as UTF-8.")
    return clean(text)


def read_plain(data: bytes) -> TextDocument:
    """Read plain text; front matter counts as text unless it restricts access. Raises `Invalid`."""
    text = decode(data)
    metadata, start = restricting_front_matter(text)
    return TextDocument(text, start=start, metadata=metadata)


def restricting_front_matter(text: str) -> tuple[Mapping[str, Any], int]:
    """As `front_matter`, for files that are not Markdown: only front matter that restricts something counts, since its
    author meant it."""
    _reject_restricting_toml(text)
    match = _FRONT_MATTER.match(text)
    if match is None or not any(_RESTRICTING_KEY.match(line) for line in match["yaml"].splitlines()):
        return {}, 0
    return front_matter(text)


def read_markdown(data: bytes) -> TextDocument:
    """Read Markdown, with its front matter as metadata. Raises `Invalid` (front_matter)."""
    text = decode(data)
    metadata, start = front_matter(text)
    return TextDocument(text, markdown=True, start=start, metadata=metadata)


def front_matter(text: str) -> tuple[Mapping[str, Any], int]:
    """The YAML between `---` lines at the very top, and the offset of the body. Raises `Invalid` (front_matter)."""
    _reject_restricting_toml(text)
    start = _FRONT_MATTER_START.match(text)
    if start is None:
        return {}, 0
    indent = len(start["above"])
    match = _FRONT_MATTER.match(text, indent)
    if indent:
        # below empty lines it is not front matter; but its author meant the restrictions that it states
        if match is not None and any(_RESTRICTING_KEY.match(line) for line in match["yaml"].splitlines()):
            raise Invalid(
                "its front matter does not begin in the first line", code="front_matter",
                hint="Take the empty lines above it away.",
            )  # fmt: skip
        return {}, 0
    if match is None:
        raise Invalid("its front matter has no end", code="front_matter", hint="Close it with a line of ---.")
    return parse_mapping(match["yaml"], "front matter"), match.end()


def _reject_restricting_toml(text: str) -> None:
    """Raise `Invalid` (front_matter) for TOML between `+++` lines, as some site generators have it, that restricts
    something: its author meant that. Other TOML stays a part of the text."""
    match = _TOML.match(text)
    if match is not None and _RESTRICTING_TOML_KEY.search(match["toml"]):
        raise Invalid("its front matter is TOML", code="front_matter", hint="Write it as YAML, between --- lines.")


def parse_mapping(yaml: str, what: str) -> Mapping[str, Any]:
    """The keys and values of a YAML text; `what` names it in errors. Raises `Invalid` (front_matter)."""
    simple = _parse_simple_yaml(yaml)
    if simple is not None:
        return simple
    try:
        mapping = YAML(typ="safe", pure=True).load(yaml)
    except (YAMLError, ValueError, RecursionError) as error:
        raise Invalid(
            f"its {what} is not YAML", code="front_matter", hint="Check the lines between the --- lines."
        ) from error
    if mapping is None:
        return {}
    if not isinstance(mapping, dict) or not all(isinstance(key, str) for key in mapping):
        raise Invalid(
            f"its {what} has no keys", code="front_matter", hint="Write `key: value` lines between the --- lines."
        )
    cleaned: dict[str, Any] = _clean_value(mapping, [MAX_VALUES])
    return cleaned


def _parse_simple_yaml(yaml: str) -> dict[str, Any] | None:
    """The same result as from YAML, if every line is a key with one plain text, date or list of names; else None."""
    found: dict[str, Any] = {}
    for line in yaml.splitlines():
        if (match := _SIMPLE_TEXT.fullmatch(line)) and not _is_yaml_constant(match["value"]):
            value: Any = match["value"]
        elif match := _SIMPLE_DAY.fullmatch(line):
            try:
                value = date.fromisoformat(match["day"])
            except ValueError:
                return None
        elif (match := _SIMPLE_LIST.fullmatch(line)) and not any(
            _is_yaml_constant(item) or not item[0].isalpha() for item in re.split(", *", match["items"])
        ):
            value = re.split(", *", match["items"])
        else:
            return None
        if match["key"] in found:
            return None
        found[match["key"]] = value
    return found


def _is_yaml_constant(value: str) -> bool:
    """Whether YAML reads the text as a constant instead of a string."""
    return value.lower() in _YAML_CONSTANTS


def read_json(data: bytes) -> TextDocument:
    """Read JSON, or one JSON document a line, as `path: value` lines. Raises `Invalid` (document_json)."""
    text = decode(data)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # a complete document may be followed by others, one a line
        if not error.msg.startswith("Extra data"):
            raise _json_error(error.lineno, error) from error
        value = _parse_json_lines(text)
    lines: list[str] = []
    _append_json_lines(value, "", lines, 0)
    title = value.get("title") if isinstance(value, dict) else None
    return TextDocument("\n".join(lines), title=clean(title) if isinstance(title, str) else None)


def _parse_json_lines(text: str) -> list[Any]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise _json_error(number, error) from error
    return found


def _json_error(line: int, error: json.JSONDecodeError) -> Invalid:
    return Invalid(f"line {line} is not JSON: {error.msg}", code="document_json", hint="Correct it there.")


def _append_json_lines(value: Any, path: str, lines: list[str], depth: int) -> None:
    if depth > MAX_NESTING:
        raise Invalid("it is nested too deeply", code="document_nesting", hint="Save it in a flatter form.")
    if isinstance(value, dict):
        for key, item in value.items():
            _append_json_lines(item, f"{path}.{_single_line(key)}" if path else _single_line(key), lines, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value, 1):
            _append_json_lines(item, f"{path}[{index}]", lines, depth + 1)
            if not path and isinstance(item, dict | list):
                lines.append("")
    elif value is not None:
        lines.append(f"{path}: {clean(str(value))}" if path else clean(str(value)))


def _single_line(key: str) -> str:
    """A key without line breaks."""
    return " ".join(clean(key).split())


def check_length(text: str) -> str:
    """Returns the text; raises `TooLarge` if it is longer than `MAX_CHARACTERS`."""
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(
            f"its text is longer than {MAX_CHARACTERS // 1_000_000} million characters",
            code="document_too_large",
            hint="Split it into parts.",
        )
    return text
