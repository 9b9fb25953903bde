-- Responses that callers asked to be stored, of workloads that keep content in full: sealed under the key of whom they are
-- about, found again by the key that made them, gone after the workload's time.
CREATE TABLE stored_response (
  id text PRIMARY KEY, workload text NOT NULL, owner uuid NOT NULL, deployment text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, sealed text NOT NULL);
CREATE INDEX stored_response_expires ON stored_response (expires_at);
GRANT SELECT, INSERT, DELETE ON stored_response TO %(db)s_gateway;
GRANT SELECT, DELETE ON stored_response TO %(db)s_control;
GRANT SELECT, INSERT ON subject_key TO %(db)s_gateway;
