-- Approvals end. `expires_on` is the last day that what was approved holds, `grace_until` the last day that production that
-- is not restricted may go on, flagged. `seats`: how many different people must agree. Kinds beside the blueprint's own
-- (model, data, policy, exception, rollout, evidence) are bound to the digest of what was declared, in `summary`.
ALTER TABLE change DROP CONSTRAINT change_state_check,
  ADD CONSTRAINT change_state_check
    CHECK (state IN ('pending', 'applied', 'refused', 'withdrawn', 'superseded', 'expired')),
  ADD COLUMN expires_on date, ADD COLUMN grace_until date, ADD COLUMN seats int NOT NULL DEFAULT 1,
  ADD COLUMN reason text NOT NULL DEFAULT '', ADD COLUMN renews uuid REFERENCES change;
CREATE INDEX change_expiry ON change (expires_on) WHERE state = 'applied';
-- Mail that only links to the console: queued in the transaction of what it tells, sent by one process.
CREATE TABLE mail (
  id uuid PRIMARY KEY, mark text NOT NULL UNIQUE, person_id uuid NOT NULL REFERENCES person, subject text NOT NULL,
  path text NOT NULL, queued_at timestamptz NOT NULL DEFAULT now(), sent_at timestamptz, tries int NOT NULL DEFAULT 0,
  next_try timestamptz NOT NULL DEFAULT now(), problem text);
CREATE INDEX mail_waiting ON mail (next_try) WHERE sent_at IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON mail TO %(db)s_control;
