"""What a workspace declares of money and use: prices, budgets and limits. The other kinds are in `model`."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from groundplan.catalog.base import Strict
from groundplan.catalog.currency import split_currency
from groundplan.catalog.fields import (
    Amount,
    Count,
    Date,
    DayWindow,
    Duration,
    Limit,
    Line,
    MoneyRates,
    Name,
    PersonRef,
    Starts,
    TokenPrice,
    UseRates,
)
from groundplan.catalog.units import period_start
from groundplan.core.currencies import USD


def _prices(value: object) -> object:
    if value == "free":
        return (Price.model_construct(input=0, output=0),)
    if isinstance(value, str | int | float):
        raise ValueError("write free, or {input: 0.40 USD/Mtok, output: 1.60 USD/Mtok}")
    return tuple(value) if isinstance(value, list) else (value,)


def _one_or_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, dict) else value


LIST_OR_ONE = BeforeValidator(_one_or_list)


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError("write a time zone like Europe/Oslo") from error
    return value


ImageClass = Annotated[str, StringConstraints(pattern=r"^(any|[0-9]{2,5}x[0-9]{2,5}(/[a-z]{1,20})?)$")]


class ClassPrice(Strict):
    """What tokens cost in another class of service. What is left out costs as in the price that this belongs to."""

    input: TokenPrice | None = None
    output: TokenPrice | None = None
    cache_read: TokenPrice | None = None
    cache_write: TokenPrice | None = None
    reasoning: TokenPrice | None = None
    input_audio: TokenPrice | None = None
    output_audio: TokenPrice | None = None


class LongPrice(ClassPrice):
    """What tokens cost when the prompt is long."""

    above: Count
    """The whole call costs so where its prompt has more tokens than this."""


class HoursPrice(ClassPrice):
    """What tokens cost at some hours of the day."""

    hours: DayWindow
    """UTC, by when the call is sent; over midnight: 16:30-00:30."""


class Price(Strict):
    """What tokens cost, by class. Left out, `cache_read`, `cache_write` and `input_audio` cost as `input`, `reasoning`
    and `output_audio` as `output`."""

    input: TokenPrice
    output: TokenPrice
    cache_read: TokenPrice | None = None
    cache_write: TokenPrice | None = None
    reasoning: TokenPrice | None = None
    input_audio: TokenPrice | None = None
    output_audio: TokenPrice | None = None
    request: Amount = 0
    """For each request on top of its tokens."""
    image: Amount = 0
    """For each image that is sent in, on top of its tokens."""
    images: dict[ImageClass, Amount] = Field(default_factory=dict)
    """For each image that is made: {1024x1024: 0.04 USD, 1024x1024/hd: 0.08 USD, any: 0.12 USD}"""
    characters: Amount = 0
    """For a million characters that are spoken."""
    minute: Amount = 0
    """For each minute of audio that is listened to."""
    shortest: Duration = 0
    """What a provider charges for shorter audio, too, such as 10s."""
    flagged: Amount = 0
    """For each request that its provider refuses for what it says, where that has a fee, as at xAI."""
    long: LongPrice | None = None
    batch: ClassPrice | None = None
    """At the provider's batch endpoint. Without `serves: [batches]`: of the calls of which batches are made there."""
    priority: ClassPrice | None = None
    """At the service tier priority. A request for that is refused without it."""
    flex: ClassPrice | None = None
    """At the service tier flex, at most what the ordinary one costs. A request for that is refused without it."""
    hours: Annotated[tuple[HoursPrice, ...], LIST_OR_ONE] = ()
    """At some hours of the day, such as off-peak: {hours: 16:30-00:30, input: 0.10 USD/Mtok}; or a list. A call costs
    as when it is sent, and its reservation covers the dearest hour."""
    since: Date | None = Field(default=None, alias="from")
    """First day on which this price holds; left out: always."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = USD
    """That of the amounts as they are written: 0.40 EUR/Mtok. Its dated rates are the company's `currencies`; a
    blueprint has the amounts at the rate of the day on which it is made."""
    note: Line | None = None
    """Where the price is from, such as a contract."""

    @model_validator(mode="before")
    @classmethod
    def _in_its_currency(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        amounts, currency = split_currency({name: part for name, part in value.items() if name not in ("note", "from")})
        return {**value, **amounts, **({} if currency == USD else {"currency": currency})}

    @property
    def free(self) -> bool:
        """As written by `price: free`."""
        return not any(
            (
                self.input,
                self.output,
                self.cache_read,
                self.cache_write,
                self.reasoning,
                self.input_audio,
                self.output_audio,
                self.request,
                self.image,
                self.images,
                self.characters,
                self.minute,
                self.flagged,
                self.long,
                self.batch,
                self.priority,
                self.flex,
                self.hours,
            )
        )

    @model_validator(mode="after")
    def _flex_below(self) -> Self:
        """What is reserved for a request that may end as either is the ordinary price."""
        for name in ClassPrice.model_fields if self.flex is not None else ():
            own, plain = getattr(self.flex, name), getattr(self, name)
            if plain is None:
                plain = self.output if name in ("reasoning", "output_audio") else self.input
            if own is not None and own > plain:
                raise ValueError(f"flex: {name} costs more than in the ordinary tier")
        return self

    @model_validator(mode="after")
    def _hours_apart(self) -> Self:
        taken: set[int] = set()
        for each in self.hours:
            start, end = each.hours
            minutes = set(range(start, end)) if start < end else {*range(start, 1440), *range(end)}
            if taken & minutes:
                raise ValueError("two prices hold at the same hour of the day")
            taken |= minutes
        return self


Prices = Annotated[tuple[Price, ...], BeforeValidator(_prices)]


def price_on(prices: tuple[Price, ...], day: date) -> Price | None:
    """The declared price that holds on `day`: the one that began last, or None where none has begun."""
    begun = [price for price in prices if price.since is None or price.since <= day]
    return max(begun, key=lambda price: price.since or date.min, default=None)


_NAME = r"[a-z0-9][a-z0-9-]{0,62}"
BUDGET_COVERS = rf"^(company|(team|workload)/{_NAME}|key/[0-9a-f-]{{36}})$"
LIMIT_COVERS = (
    rf"^(company|user|key|(team|workload|deployment)/{_NAME}|key/[0-9a-f-]{{36}}"
    r"|user/[a-z0-9._%+'@-]{1,254}|model/[A-Za-z0-9@][A-Za-z0-9._:/@-]{0,127})$"
)


class BudgetDoc(Strict):
    """A limit of money. A call is charged to every budget that covers it."""

    kind: Literal["budget"] = "budget"
    name: Name
    covers: Annotated[str, StringConstraints(pattern=BUDGET_COVERS)]
    """company, team/NAME, workload/NAME or key/ID"""
    limit: Limit
    hard: bool = True
    """false: exceeding it warns and refuses nothing."""
    starts: Starts | None = None
    """Start of a period, if it is not the calendar's: a weekday, a day of the month, or MM-DD for quarters and years
    (of a fiscal year)."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """Time zone of periods, such as Europe/Oslo."""
    owner: PersonRef | None = None

    @model_validator(mode="after")
    def _starts_fit(self) -> Self:
        if self.starts is not None:
            period_start(self.limit.period, self.starts)
        return self


class LimitDoc(Strict):
    """The most that somebody or something may use in a time; a call beyond it is refused with when it frees."""

    kind: Literal["limit"] = "limit"
    name: Name
    covers: Annotated[str, StringConstraints(pattern=LIMIT_COVERS)]
    """company, team/NAME, workload/NAME, key/ID, user/EMAIL, model/NAME, deployment/NAME; or user, key: each of them"""
    requests: UseRates = ()
    """600/minute; or a list: [600/minute, 10k/day]"""
    tokens: UseRates = ()
    """Prompt and answer together: 200k/minute"""
    concurrent: Annotated[Count, Field(ge=1)] | None = None
    """Calls at the same time."""
    cost: MoneyRates = ()
    """5 USD/day"""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.requests or self.tokens or self.concurrent or self.cost):
            raise ValueError("write at least one of requests, tokens, concurrent and cost")
        return self
