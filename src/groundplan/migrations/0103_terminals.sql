-- What somebody at a command line wants to say to a change: it is said once the person has shown that they are there.
CREATE TABLE terminal_request (
  id uuid PRIMARY KEY, hash bytea NOT NULL, code text NOT NULL, change_id uuid NOT NULL REFERENCES change,
  digest text NOT NULL, decision text NOT NULL CHECK (decision IN ('approve', 'refuse')), comment text NOT NULL DEFAULT '',
  asked_by text NOT NULL, created_at timestamptz NOT NULL, expires_at timestamptz NOT NULL,
  person_id uuid REFERENCES person, proof text, confirmed_at timestamptz, used_at timestamptz);
CREATE INDEX terminal_request_open ON terminal_request (expires_at) WHERE used_at IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON terminal_request TO %(db)s_control;
