-- Attempts of a range of days, as when a bill is compared with them. They arrive nearly in order of time, so that a
-- block range index answers and costs almost nothing to keep.
CREATE INDEX attempt_at ON attempt USING brin (at);
