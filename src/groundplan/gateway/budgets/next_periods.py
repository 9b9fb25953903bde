"""Which budgets and limits are fetched ahead of their next period, so that the first call of a minute or a day does not
wait, and finds enough where PostgreSQL is away at that time. Pure; `lease_client` fetches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from groundplan.gateway.budgets.account import OUTAGE_S, Account
from groundplan.gateway.budgets.leases import Key, Quota
from groundplan.gateway.budgets.periods import ends, next_key


def accounts_to_renew(
    active: Iterable[tuple[Key, Account]], seconds: Callable[[Key], float]
) -> Iterator[tuple[Account, str]]:
    """Yield each account that is used often and whose period ends within `OUTAGE_S`, with the period that follows. Of a
    period that is over, the next one has uses of its own to go by.

    `seconds` returns the time by which a key's periods begin and end, in seconds since the epoch.
    """
    for key, account in active:
        end = ends(key[1]) if account.is_used_often else None
        if end is None or not 0.0 < end.timestamp() - seconds(key) <= OUTAGE_S:
            continue
        declared = account.declared
        spec = ("", "UTC") if isinstance(declared, Quota) else (declared.starts, declared.timezone)
        if (following := next_key(declared.period, *spec, key[1])) is not None:
            yield account, following
