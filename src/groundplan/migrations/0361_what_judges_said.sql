-- What a judge said of a pair of answers: its two verdicts where there is a score, else the begin of what it said instead,
-- without words of the call. Null: it was not asked, or did not answer.
ALTER TABLE experiment_pair ADD COLUMN said text;
ALTER TABLE replay_call ADD COLUMN said text;
-- Of a run that failed: {code, hint}, beside the sentence in `outcome`.
ALTER TABLE replay_run ADD COLUMN problem jsonb;
