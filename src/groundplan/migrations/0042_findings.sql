-- A finding is one thing that is wrong with a subject now: known again by its kind, subject and mark, so that whoever looks
-- again neither repeats nor loses it. `detail` holds the figures behind the message, `fix` what is proposed, `due` by when.
ALTER TABLE finding ADD COLUMN mark text NOT NULL DEFAULT gen_random_uuid()::text, ADD COLUMN detail jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN fix jsonb, ADD COLUMN due date, ADD COLUMN seen_at timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN closed_by text, ADD COLUMN closed_reason text,
  ADD COLUMN quiet_until timestamptz;       -- somebody said: not before then
CREATE UNIQUE INDEX finding_open ON finding (kind, subject, mark) WHERE closed_at IS NULL;
CREATE INDEX finding_subject ON finding (subject);
