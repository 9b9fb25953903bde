-- Files that are sent in parts. A part is a file that nobody names, until the whole is made of it: so it is counted, expires and is
-- erased like any other.
ALTER TABLE api_file DROP CONSTRAINT api_file_purpose_check;
ALTER TABLE api_file ADD CONSTRAINT api_file_purpose_check CHECK (
  purpose IN ('batch', 'batch_output', 'message_batch', 'user_data', 'vision', 'assistants', 'upload_part')) NOT VALID;
ALTER TABLE api_file VALIDATE CONSTRAINT api_file_purpose_check;
ALTER TABLE api_file ADD COLUMN upload uuid;
CREATE INDEX api_file_upload ON api_file (upload) WHERE upload IS NOT NULL;
CREATE TABLE api_upload (
  id uuid PRIMARY KEY, workload text NOT NULL, key_id uuid NOT NULL, filename text NOT NULL, purpose text NOT NULL,
  bytes bigint NOT NULL, created_at timestamptz NOT NULL, expires_at timestamptz NOT NULL, seconds integer, file uuid,
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'cancelled')));
CREATE INDEX api_upload_expires ON api_upload (expires_at);
GRANT SELECT, INSERT, UPDATE (status, file), DELETE ON api_upload TO %(db)s_gateway;
GRANT SELECT ON api_upload TO %(db)s_control;
