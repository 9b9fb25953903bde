"""Commands whose options are grouped: a parameter that is a frozen dataclass stands for its fields, each an option.

So a command takes few values, and options that belong together are named and read once. What every command has
(`--home`, `--json`) comes last in its help. Says nothing of values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

Parameter = inspect.Parameter
LAST = ("home", "as_json")


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer is to see it. Fields need `Annotated` types and defaults, or a factory of one."""
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    plain = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[name])
        for name, each in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    made = [parameter for kind in groups.values() for parameter in _options(kind)]
    every = sorted((*plain, *made), key=lambda each: each.name in LAST)

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        command(**values)

    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in every}
    return run


def _options(kind: type) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name])
        for field in fields(kind)
    ]


def _default(field: Field[Any]) -> Any:
    return field.default if field.default is not MISSING else Parameter.empty
