-- What open calls of a worker hold of a budget, told while another worker is short of it: a caller who is refused for them
-- is not told to come back when the period ends.
ALTER TABLE budget_slice ADD COLUMN open_usd numeric(30,12) NOT NULL DEFAULT 0, ADD COLUMN open_at timestamptz;
CREATE INDEX budget_slice_open ON budget_slice (budget, period) WHERE open_at IS NOT NULL;
