-- Chat completions that callers asked to be stored, of workloads that keep content in full: sealed under the key of whom
-- they are about, found again by the key that made them, gone after the workload's time. Upstreams give the ids, so that
-- one is unique for its owner only.
CREATE TABLE stored_completion (
  call_id uuid PRIMARY KEY, id text NOT NULL, workload text NOT NULL, owner uuid NOT NULL, deployment text NOT NULL,
  model text NOT NULL, at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, sealed text NOT NULL,
  UNIQUE (owner, id));
CREATE INDEX stored_completion_expires ON stored_completion (expires_at);
CREATE INDEX stored_completion_listed ON stored_completion (owner, call_id);
GRANT SELECT, INSERT, DELETE, UPDATE (sealed) ON stored_completion TO %(db)s_gateway;
GRANT SELECT, DELETE ON stored_completion TO %(db)s_control;
