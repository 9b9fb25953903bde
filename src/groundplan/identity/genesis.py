"""Checks of the people that a first blueprint declares, all problems at once. Pure; writes nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from groundplan.core.errors import Invalid, Problem
from groundplan.identity.model import DUTIES, EVERYONE, PUBLIC, GenesisPeople

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")


def normal_email(text: str) -> str:
    """The address in lower case. Raises `Invalid` (`email`) if it is none."""
    address = text.strip().lower()
    if not _EMAIL.fullmatch(address) or len(address) > 254:
        raise Invalid(f"not an e-mail address: {text!r}", code="email", hint="Write it like ana@acme.example.")
    return address


def check_genesis(company: GenesisPeople) -> None:
    """Raises one `Invalid` (`people`) with every problem: addresses, duplicates, unknown members and duties, cycles."""
    problems = [*_people(company), *_groups(company), *_duties(company)]
    if problems:
        raise Invalid(
            f"the declared people are wrong in {len(problems)} places, first: {problems[0].message}",
            code=problems[0].code if len(problems) == 1 else "people",
            hint=problems[0].hint,
            problems=tuple(problems),
        )


def _known(company: GenesisPeople) -> set[str]:
    return {person.email.strip().lower() for person in company.people}


def _duplicates(names: Iterable[str], kind: str) -> Iterator[Problem]:
    for name, count in Counter(names).items():
        if count > 1:
            yield Problem(f"{kind} {name} is declared {count} times", f"duplicate_{kind}", "Declare it once.")


def _people(company: GenesisPeople) -> Iterator[Problem]:
    yield from _duplicates((person.email.strip().lower() for person in company.people), "person")
    for person in company.people:
        if not person.name.strip():
            yield Problem(f"{person.email} has no name", "name", "Give the name that others know the person by.")
        try:
            normal_email(person.email)
        except Invalid as error:
            yield Problem(error.message, error.code, error.hint)


def _groups(company: GenesisPeople) -> Iterator[Problem]:
    yield from _duplicates((group.name for group in company.groups), "group")
    known_people, names = _known(company), {group.name for group in company.groups}
    for group in company.groups:
        if group.name in (EVERYONE, PUBLIC) or not group.name.strip() or "@" in group.name:
            hint = "Use a name without @; not `everyone` or `public`."
            yield Problem(f"no name for a group: {group.name!r}", "group_name", hint)
        for email in group.people:
            if email.strip().lower() not in known_people:
                yield Problem(f"{email} in group {group.name} is nobody", "unknown_person", "Declare the person.")
        for name in group.groups:
            if name not in names:
                yield Problem(f"{name} in group {group.name} is no group", "unknown_group", "Declare the group.")
    try:
        TopologicalSorter({group.name: group.groups for group in company.groups}).prepare()
    except CycleError as error:
        path = " contains ".join(reversed(error.args[1]))
        yield Problem(f"groups contain themselves: {path}", "cyclic_group", "Take one of them out of the other.")


def _duties(company: GenesisPeople) -> Iterator[Problem]:
    known_people = _known(company)
    for duty in company.duties:
        if duty.duty not in DUTIES:
            yield Problem(f"there is no duty {duty.duty}", "unknown_duty", f"Duties are {', '.join(DUTIES)}.")
        if duty.email.strip().lower() not in known_people:
            yield Problem(
                f"{duty.email}, {duty.duty} of {duty.subject}, is nobody", "unknown_person", "Declare the person."
            )
