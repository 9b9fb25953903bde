"""One family of errors, divided by what the caller can do about them.

Every error says what happened (the message), where (`where`: a file position or an id), and what to do (`hint`); `code`
is stable and meant for programs. This module does not render errors: the gateway, the API and the CLI each do that in
their shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a text file. Lines and columns count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in an input; an `Invalid` may carry many, so that all are reported at once."""

    message: str
    code: str
    hint: str
    where: Where | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message} [{self.code}] {self.hint}"


class GroundplanError(Exception):
    """Root of all errors that Groundplan raises on purpose.

    `status` is the HTTP status it maps to and `exit_code` the process exit code (sysexits.h numbers).
    """

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        code: str | None = None,
        where: Where | str | None = None,
        problems: tuple[Problem, ...] = (),
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code
        self.where = where
        self.problems = problems
        self.retry_after = retry_after
        self.details = details or {}

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message} [{self.code}] {self.hint}"


class Invalid(GroundplanError):
    """The input is wrong; sending it again unchanged cannot help."""

    status = 400
    exit_code = 65
    default_code = "invalid"


class NotFound(Invalid):
    """Something that the input names does not exist (or the caller may not know that it does)."""

    status = 404
    default_code = "not_found"


class TooLarge(Invalid):
    """The input is larger than the limit."""

    status = 413
    default_code = "too_large"


class WrongType(Invalid):
    """The input has an unsupported content type."""

    status = 415
    default_code = "wrong_type"


class Unauthenticated(GroundplanError):
    """The caller is not authenticated."""

    status = 401
    exit_code = 77
    default_code = "unauthenticated"


class Denied(GroundplanError):
    """A rule refuses this to this caller; another caller, or an approval, may be allowed."""

    status = 403
    exit_code = 77
    default_code = "denied"


class Conflict(GroundplanError):
    """The state has moved on, or forbids this; look again before trying again."""

    status = 409
    exit_code = 75
    default_code = "conflict"


class Exhausted(GroundplanError):
    """A limit or budget is used up, until a known time or until somebody raises it."""

    status = 429
    exit_code = 75
    default_code = "exhausted"


class Unavailable(GroundplanError):
    """Something needed is down or too slow; the same request may succeed later (`retry_after`, seconds)."""

    status = 503
    exit_code = 69
    default_code = "unavailable"


class Misconfigured(Unavailable):
    """Something needed does not work until somebody fixes it; retrying soon does not help."""
