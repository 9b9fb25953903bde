"""Option groups for commands: a parameter that is a frozen dataclass stands for its fields, each of which is an option.

So a command has few parameters, and options that belong together are declared once. Options that every command has
(`--home`, `--json`) come last in its help. This module does not validate values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

Parameter = inspect.Parameter
SHARED_PARAMETERS = ("home", "as_json")


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap `command` with a signature in which each group is replaced by its fields, as typer needs it. Fields need
    `Annotated` types."""
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    groups = {name: group for name, group in hints.items() if isinstance(group, type) and is_dataclass(group)}
    own_parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=own.default, annotation=hints[name])
        for name, own in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    group_options = [parameter for group in groups.values() for parameter in _group_parameters(group)]
    parameters = sorted((*own_parameters, *group_options), key=lambda parameter: parameter.name in SHARED_PARAMETERS)

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _group_parameters(kind: type) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name])
        for field in fields(kind)
    ]


def _default(field: Field[Any]) -> Any:
    return field.default if field.default is not MISSING else Parameter.empty
