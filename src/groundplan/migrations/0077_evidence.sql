-- Evidence that controls are satisfied by: never changed, withdrawn at most; each is in the audit log by its digest.
CREATE TABLE evidence (
  id uuid PRIMARY KEY, what text NOT NULL, subject text NOT NULL,
  type text NOT NULL CHECK (type IN ('query', 'test', 'approval', 'drill', 'review', 'document')),
  collector text NOT NULL, at timestamptz NOT NULL, valid_until timestamptz NOT NULL CHECK (valid_until > at),
  holds boolean NOT NULL, says text NOT NULL, detail jsonb NOT NULL, digest text NOT NULL,
  audit_entry uuid NOT NULL REFERENCES audit_entry, link text, withdrawn_at timestamptz, withdrawn_by text);
CREATE INDEX evidence_newest ON evidence (subject, what, at DESC, id DESC);
GRANT SELECT, INSERT ON evidence TO %(db)s_control;
GRANT UPDATE (withdrawn_at, withdrawn_by) ON evidence TO %(db)s_control;
