"""jsonschema looks at formats of IRIs by a library that compiles a grammar for a second wherever it is loaded. With
`put_off` that is done when the first IRI is looked at: hardly any process of the tests ever does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

_NAME = "rfc3987_syntax"


def put_off() -> None:
    """From here on, in this process and those that are forked from it; before jsonschema is loaded."""
    if _NAME in sys.modules or importlib.util.find_spec(_NAME) is None:
        return
    late = ModuleType(_NAME)
    late.is_valid_syntax = _is_valid  # type: ignore[attr-defined]
    sys.modules[_NAME] = late


def _is_valid(rule: str, value: str) -> bool:
    late = sys.modules[_NAME]
    if late.__dict__.get("is_valid_syntax") is _is_valid:
        del sys.modules[_NAME]
        late = importlib.import_module(_NAME)
    found: bool = late.is_valid_syntax(rule, value)
    return found
