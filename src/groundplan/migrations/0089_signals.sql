-- What people do with what search gives: click, thumbs, and questions to which nothing was found. What was asked is personal:
-- it is here, sealed, with who asked, only where the workload keeps content, and for as long.
CREATE TABLE knowledge_signal (
  id uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), workload text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('click', 'up', 'down', 'unanswered')),
  document_id uuid REFERENCES document ON DELETE SET NULL, rank int, call_id uuid,
  person_id uuid, asked text, expires_at timestamptz,
  CHECK (asked IS NULL OR (person_id IS NOT NULL AND expires_at IS NOT NULL)));
CREATE INDEX knowledge_signal_at ON knowledge_signal (at);
CREATE INDEX knowledge_signal_document ON knowledge_signal (document_id) WHERE document_id IS NOT NULL;
CREATE INDEX knowledge_signal_expires ON knowledge_signal (expires_at) WHERE expires_at IS NOT NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON knowledge_signal TO %(db)s_control;
