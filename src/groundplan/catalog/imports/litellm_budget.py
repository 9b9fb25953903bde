"""LiteLLM's proxy-wide budget -> the company's budget and that of each workload."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

from groundplan.catalog import units
from groundplan.catalog.imports.litellm_models import ImportOptions
from groundplan.catalog.imports.litellm_numbers import PERIODS
from groundplan.catalog.imports.node import Config
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NEEDED, Finding
from groundplan.catalog.scaffold import DEFAULT_BUDGET
from groundplan.core.errors import Invalid, Where
from groundplan.core.money import format_plain

_MOST = Decimal(9_000_000)
_SMALLEST = Decimal("0.000000000001")


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits in the notation of declarations."""

    workload: str
    company: str | None


def parse_limit(text: str) -> str:
    """`200`, `200 USD` (a month) or `200 USD/day` as a limit. Raises `Invalid`."""
    amount, _, period = text.partition("/")
    try:
        return str(units.limit(f"{amount.strip().removesuffix('USD').strip()} USD/{period.strip() or 'month'}"))
    except ValueError as error:
        hint = "Write an amount in USD for a month, such as 200, or for another period: 200 USD/day."
        raise Invalid("the budget cannot be read", code="money_syntax", hint=hint) from error


def read_budgets(config: Config, asked: ImportOptions, findings: list[Finding]) -> Budgets:
    """The company's limit from `max_budget`; that of each workload from the options, else the company's, else a small
    default with a finding."""
    company = _company_limit(config, findings)
    if asked.budget is not None:
        return Budgets(parse_limit(asked.budget), company)
    if company is not None:
        return Budgets(company, company)
    here = f"each workload got {DEFAULT_BUDGET}, as nothing says what it may cost"
    findings.append(Finding(NEEDED, "budget", here, "Say --budget USD for a month.", Where(config.main, 1)))
    return Budgets(DEFAULT_BUDGET, None)


def _add_no_budget_findings(config: Config, findings: list[Finding]) -> None:
    """Findings for settings that make no budget, in LiteLLM as well: an amount of 0, a period without an amount."""
    for section in ("litellm_settings", "general_settings"):
        for key, here in (("max_budget", "no budget: 0 is none there"), ("budget_duration", "no budget: no amount")):
            if (node := config.get(section, key)) is not None:
                findings.append(Finding(CARRIED, f"{section}.{key}", here, "", node.where_key))


def _company_limit(config: Config, findings: list[Finding]) -> str | None:
    section = next((s for s in ("litellm_settings", "general_settings") if config.get(s, "max_budget")), None)
    node = config.get(section, "max_budget") if section else None
    amount = node.number() if node else None
    if section is None or node is None or not amount:
        _add_no_budget_findings(config, findings)
        return None
    if amount > _MOST:
        node.add_problem("an amount in USD below 9 million")
        return None
    lasts = config.get(section, "budget_duration")
    written = lasts.text() if lasts else None
    period = "total" if written is None else PERIODS.get(written.strip().lower())
    if period is None:
        here = "budget for the company, for each calendar month, as periods of budgets are those of the calendar"
        findings.append(Finding(CHANGED, f"{section}.budget_duration", here, "Set another limit.", node.where_key))
    else:
        here = "budget for the company, hard" + ("" if period == "total" else f", for each calendar {period}")
        findings.append(Finding(CARRIED, f"{section}.max_budget", here, "", node.where_key))
    return parse_limit(f"{format_plain(amount.quantize(_SMALLEST, ROUND_FLOOR))} USD/{period or 'month'}")
