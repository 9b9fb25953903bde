-- What the same answer cost before, of a call that got it from the cache; and what the provider's own cache of prompts
-- saved: tokens read from it at what they cost less than others.
ALTER TABLE call ADD COLUMN saved_usd numeric(30,12) NOT NULL DEFAULT 0,
  ADD COLUMN prefix_saved_usd numeric(30,12) NOT NULL DEFAULT 0;

-- How often the answers of a workload were cleared: part of every answer's key, so that none from before is found.
CREATE TABLE answer_clear (
  workload text PRIMARY KEY, number int NOT NULL, at timestamptz NOT NULL DEFAULT now(), by text NOT NULL);
GRANT SELECT ON answer_clear TO %(db)s_gateway, %(db)s_shipper;
GRANT SELECT, INSERT, UPDATE ON answer_clear TO %(db)s_control;

-- Answers of workloads that keep content in full, for other workers and for after a restart; sealed under the key of
-- whom each was made for, and gone after its time.
CREATE TABLE answer (
  call_id uuid PRIMARY KEY, number bigint GENERATED ALWAYS AS IDENTITY, workload text NOT NULL, cleared int NOT NULL,
  made_at timestamptz NOT NULL, expires_at timestamptz NOT NULL, size int NOT NULL, subjects text[] NOT NULL,
  sealed text NOT NULL);
CREATE INDEX answer_number ON answer (number);
CREATE INDEX answer_expires ON answer (expires_at);
GRANT SELECT, INSERT, DELETE ON answer TO %(db)s_shipper;
GRANT SELECT, DELETE ON answer TO %(db)s_control;
GRANT SELECT ON kill_switch TO %(db)s_shipper;
