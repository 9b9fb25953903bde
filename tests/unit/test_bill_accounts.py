"""A bill of a whole organisation, of which some accounts are not ours."""

from __future__ import annotations

import pytest
from tests.unit.test_reconcile import RATES, attempt, kinds

from groundplan.api.routes.reconcile import read_options
from groundplan.core.errors import Invalid
from groundplan.economics.bills.reconcile import reconcile

ACCOUNTS = """\
date,model,project_name,input tokens,output tokens,amount
2026-11-25,gpt-4o,prod,1000,100,0.003
2026-11-25,gpt-4o,research,900000,100000,2.8
2026-11-25,gpt-4o,,1,1,0.1
"""


def test_lines_of_other_accounts_are_left_out_by_name() -> None:
    read = read_options(ACCOUNTS, "a.csv", {}, None, None)
    assert len(read.lines) == 3
    assert read.notes == ("lines of 2 accounts (prod, research) are compared: --account NAME leaves the others out",)
    prod = read_options(ACCOUNTS, "a.csv", {}, None, None, ["prod"])
    assert kinds(reconcile(prod, [attempt()], RATES)) == {} and prod.notes == ("2 lines of other accounts passed over",)
    both = read_options(ACCOUNTS, "a.csv", {}, None, None, ["prod", "research"])
    assert [line.account for line in both.lines] == ["prod", "research"]
    with pytest.raises(Invalid) as refused:
        read_options(ACCOUNTS, "a.csv", {}, None, None, ["Prod"])
    assert (refused.value.code, refused.value.hint) == ("bill_account", "It has lines of prod, research.")
    with pytest.raises(Invalid, match="no line of the account prod"):
        read_options("date,model,amount\n2026-11-25,m,1\n", "a.csv", {}, None, None, ["prod"])
