"""Plain text and Markdown with front matter, and JSON. Pure: bytes in, text out.

Front matter is YAML 1.2 between `---` lines at the very top; the few simplest forms of it are read without a YAML
library, which is what makes a thousand small documents quick.
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

_UNSEEN = re.compile(
    # C0 and C1 controls but tab and line feed; soft hyphen, zero width space, direction marks and overrides, byte
    # order mark, line and paragraph separators, tags: what a reader does not see must not reach a model
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_FRONT = re.compile(r"---[ \t]*\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_BEGINS = re.compile(r"(?P<above>\s*)---[ \t]*\n")
_NARROWS = re.compile(
    r"(?:readers|deny|state|sensitivity|purposes|workloads|residency|valid_from|valid_until|legal_hold)[ \t]*:"
)
_TOML = re.compile(r"\s*\+\+\+[ \t]*\n(?P<toml>.*?)^\+\+\+[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_NARROWS_IN_TOML = re.compile(r"^[ \t]*" + _NARROWS.pattern.removesuffix(":") + "=", re.MULTILINE | re.IGNORECASE)
_SIMPLE = re.compile(r"(?P<key>[a-z_]{1,40}): +(?P<value>[A-Za-z][A-Za-z0-9 .,()'/@_+-]*[A-Za-z0-9.)]|[A-Za-z])[ \t]*")
_DAY = re.compile(r"(?P<key>[a-z_]{1,40}): +(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})[ \t]*")
_LIST = re.compile(r"(?P<key>[a-z_]{1,40}): +\[(?P<items>[A-Za-z0-9@._/-]+(?:, *[A-Za-z0-9@._/-]+)*)\][ \t]*")
_WORDS_OF_YAML = frozenset({"true", "false", "null", "nan", "inf"})
NUL_SHARE = 3
"""Where more than one character in so many is NUL it is another encoding, such as UTF-16 without its mark: between the
letters of its words would be spaces."""
MAX_NESTING = 40
MAX_VALUES = 20_000
"""Of front matter or of a file beside documents."""


@dataclass(frozen=True, slots=True)
class TextDocument:
    """The text of a document; `start` is where it begins after its front matter."""

    text: str
    markdown: bool = False
    start: int = 0
    title: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    links: tuple[str, ...] = ()
    """What a page of a site links to, as written."""
    pictures: int = 0
    """Pages that are pictures, whose text is missing."""


def clean(text: str) -> str:
    """The text with `\\n` as its line end and each unseen control character as a space; the number of lines stays."""
    return _UNSEEN.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))


def _clean_value(value: Any, left: list[int]) -> Any:
    """A value of YAML with its texts `clean`ed. `left`: so many values yet, since aliases can name more than memory
    holds."""
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
    """A name as it can be shown and stored: bytes that are no UTF-8 as numbers behind a backslash."""
    try:
        return clean(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    except UnicodeEncodeError:
        return clean(name.encode("utf-8", "backslashreplace").decode())


def decode(data: bytes) -> str:
    """Cleaned text of UTF-8 bytes (UTF-16 with its mark as well). Raises `Invalid` and `TooLarge`."""
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
    if text.count("\0") * NUL_SHARE > len(text):
        raise Invalid("it is not UTF-8, or not text", code="document_encoding", hint="Save it as UTF-8.")
    return clean(text)


def read_plain(data: bytes) -> TextDocument:
    """Text; front matter is a part of it, unless it says who may read it. Raises `Invalid`."""
    text = decode(data)
    told, start = narrowing_matter(text)
    return TextDocument(text, start=start, told=told)


def narrowing_matter(text: str) -> tuple[Mapping[str, Any], int]:
    """As `front_matter`, of files that are no Markdown: only where it narrows something, since whoever wrote it so
    meant it."""
    _check_toml(text)
    match = _FRONT.match(text)
    if match is None or not any(_NARROWS.match(line) for line in match["yaml"].splitlines()):
        return {}, 0
    return front_matter(text)


def read_markdown(data: bytes) -> TextDocument:
    """Markdown with its front matter apart. Raises `Invalid` (front_matter)."""
    text = decode(data)
    told, start = front_matter(text)
    return TextDocument(text, markdown=True, start=start, told=told)


def front_matter(text: str) -> tuple[Mapping[str, Any], int]:
    """The YAML between `---` lines at the very top, and where the body begins. Raises `Invalid` (front_matter)."""
    _check_toml(text)
    begins = _BEGINS.match(text)
    if begins is None:
        return {}, 0
    above = len(begins["above"])
    match = _FRONT.match(text, above)
    if above:
        # below empty lines it is none; but who wrote it so meant what it says about who may read it
        if match is not None and any(_NARROWS.match(line) for line in match["yaml"].splitlines()):
            raise Invalid(
                "its front matter does not begin in the first line", code="front_matter",
                hint="Take the empty lines above it away.",
            )  # fmt: skip
        return {}, 0
    if match is None:
        raise Invalid("its front matter has no end", code="front_matter", hint="Close it with a line of ---.")
    return parse_mapping(match["yaml"], "front matter"), match.end()


def _check_toml(text: str) -> None:
    """TOML between `+++` lines, as some makers of sites have it, is a part of the text; but who wrote there who may
    read it meant that. Raises `Invalid` (front_matter)."""
    match = _TOML.match(text)
    if match is not None and _NARROWS_IN_TOML.search(match["toml"]):
        raise Invalid("its front matter is TOML", code="front_matter", hint="Write it as YAML, between --- lines.")


def parse_mapping(yaml: str, what: str) -> Mapping[str, Any]:
    """The keys and values of a YAML text. Raises `Invalid` (front_matter)."""
    simple = _simple(yaml)
    if simple is not None:
        return simple
    try:
        front = YAML(typ="safe", pure=True).load(yaml)
    except (YAMLError, ValueError, RecursionError) as error:
        raise Invalid(
            f"its {what} is not YAML", code="front_matter", hint="Check the lines between the --- lines."
        ) from error
    if front is None:
        return {}
    if not isinstance(front, dict) or not all(isinstance(key, str) for key in front):
        raise Invalid(
            f"its {what} has no keys", code="front_matter", hint="Write `key: value` lines between the --- lines."
        )
    cleaned: dict[str, Any] = _clean_value(front, [MAX_VALUES])
    return cleaned


def _simple(yaml: str) -> dict[str, Any] | None:
    """As YAML would read it, where every line is a key with one plain text, day or list of names; else None."""
    found: dict[str, Any] = {}
    for line in yaml.splitlines():
        if (match := _SIMPLE.fullmatch(line)) and not _has_meaning(match["value"]):
            value: Any = match["value"]
        elif match := _DAY.fullmatch(line):
            try:
                value = date.fromisoformat(match["day"])
            except ValueError:
                return None
        elif (match := _LIST.fullmatch(line)) and not any(
            _has_meaning(item) or not item[0].isalpha() for item in re.split(", *", match["items"])
        ):
            value = re.split(", *", match["items"])
        else:
            return None
        if match["key"] in found:
            return None
        found[match["key"]] = value
    return found


def _has_meaning(value: str) -> bool:
    """Whether YAML takes the text for something else than a text."""
    return value.lower() in _WORDS_OF_YAML


def read_json(data: bytes) -> TextDocument:
    """JSON (or one JSON document a line) as `path: value` lines. Raises `Invalid` (document_json)."""
    text = decode(data)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # behind a whole document there may be others, one a line
        if not error.msg.startswith("Extra data"):
            raise _no_json(error.lineno, error) from error
        value = _by_line(text)
    lines: list[str] = []
    _json_lines(value, "", lines, 0)
    title = value.get("title") if isinstance(value, dict) else None
    return TextDocument("\n".join(lines), title=clean(title) if isinstance(title, str) else None)


def _by_line(text: str) -> list[Any]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise _no_json(number, error) from error
    return found


def _no_json(line: int, error: json.JSONDecodeError) -> Invalid:
    return Invalid(f"line {line} is not JSON: {error.msg}", code="document_json", hint="Correct it there.")


def _json_lines(value: Any, path: str, lines: list[str], depth: int) -> None:
    if depth > MAX_NESTING:
        raise Invalid("it is nested too deeply", code="document_nesting", hint="Save it in a flatter form.")
    if isinstance(value, dict):
        for key, item in value.items():
            _json_lines(item, f"{path}.{_key(key)}" if path else _key(key), lines, depth + 1)
    elif isinstance(value, list):
        for at, item in enumerate(value, 1):
            _json_lines(item, f"{path}[{at}]", lines, depth + 1)
            if not path and isinstance(item, dict | list):
                lines.append("")
    elif value is not None:
        lines.append(f"{path}: {clean(str(value))}" if path else clean(str(value)))


def _key(key: str) -> str:
    """A key on one line."""
    return " ".join(clean(key).split())


def check_length(text: str) -> str:
    """The text; raises `TooLarge` where it is more than anybody reads."""
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(
            f"its text is longer than {MAX_CHARACTERS // 1_000_000} million characters",
            code="document_too_large",
            hint="Split it into parts.",
        )
    return text
