-- What was spent of budgets is asked for by their present periods. Of keys that each have a budget a day, all days that ever
-- were, were looked through for it.
CREATE INDEX budget_period_period ON budget_period (period);
CREATE INDEX charge_total_period ON charge_total (period);
CREATE INDEX budget_slice_period ON budget_slice (epoch, period);
