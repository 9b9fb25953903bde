-- Which sites fail now is asked by every look at the overview: what failed is found without reading what was answered.
CREATE INDEX attempt_failed ON attempt (site, call_id, number) WHERE outcome IN ('failed', 'not_billed');
