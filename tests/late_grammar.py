"""jsonschema checks the format of IRIs with a library that compiles a grammar for a second when it is imported.
`defer_loading` defers that until the first IRI is checked, which hardly any test process ever does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

_NAME = "rfc3987_syntax"


def defer_loading() -> None:
    """Defer it in this process and those forked from it; to be called before jsonschema is imported."""
    if _NAME in sys.modules or importlib.util.find_spec(_NAME) is None:
        return
    module = ModuleType(_NAME)
    module.is_valid_syntax = _is_valid  # type: ignore[attr-defined]
    sys.modules[_NAME] = module


def _is_valid(rule: str, value: str) -> bool:
    module = sys.modules[_NAME]
    if module.__dict__.get("is_valid_syntax") is _is_valid:
        del sys.modules[_NAME]
        module = importlib.import_module(_NAME)
    is_valid: bool = module.is_valid_syntax(rule, value)
    return is_valid
