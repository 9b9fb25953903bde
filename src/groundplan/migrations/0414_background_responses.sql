-- Responses that callers asked for in the background, of workloads that keep content in full: what was asked, how far it is, and
-- its events, sealed under the key of whom they are about. What became of it is a stored response, or stands in `failed`.
CREATE TABLE background_response (
  id text PRIMARY KEY, call_id uuid UNIQUE, workload text NOT NULL, owner uuid NOT NULL, key_id uuid NOT NULL,
  person text NOT NULL, said jsonb NOT NULL DEFAULT '{}', at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL, sealed text NOT NULL, failed text, ended integer,
  status text NOT NULL DEFAULT 'queued'
    CHECK (status IN ('queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled')),
  epoch uuid);
CREATE INDEX background_response_expires ON background_response (expires_at);
CREATE INDEX background_response_workload ON background_response (workload, at);
CREATE INDEX background_response_open ON background_response (status, at) WHERE status IN ('queued', 'in_progress');
CREATE TABLE background_event (
  place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text NOT NULL REFERENCES background_response (id) ON DELETE CASCADE, number integer NOT NULL, upto integer NOT NULL,
  sealed text NOT NULL, UNIQUE (id, number));
GRANT SELECT, INSERT, DELETE, UPDATE (status, epoch, call_id, failed, ended) ON background_response TO %(db)s_gateway;
GRANT SELECT, INSERT, DELETE ON background_event TO %(db)s_gateway;
GRANT SELECT, DELETE ON background_response, background_event TO %(db)s_control;
GRANT SELECT ON SEQUENCE background_event_place_seq TO %(db)s_control;
