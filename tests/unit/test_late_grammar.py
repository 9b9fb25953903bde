"""The check of IRIs that is loaded late says what it says when it is loaded at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rfc3987_syntax")
ROOT = Path(__file__).parents[2]
CHECK = """
import sys
{before}
from jsonschema import Draft202012Validator, FormatChecker
print('lark' in sys.modules)
look = Draft202012Validator({{"format": "iri"}}, format_checker=FormatChecker())
print([look.is_valid(text) for text in ("https://ex\\u00e4mple.org/a?b#c", "no iri", "a:b", "https://[", "")])
print('lark' in sys.modules)
"""


def run_check(before: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(before=before)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_it_says_the_same_and_is_loaded_when_the_first_is_looked_at() -> None:
    late = run_check("from tests import late_grammar; late_grammar.defer_loading()")
    once = run_check("")
    assert (late[0], once[0]) == ("False", "True")
    assert late[1:] == once[1:]
    assert "True" in late[1] and "False" in late[1]
