-- Anthropic's message batches: what belongs to one is no file of OpenAI's API, and how many of its calls were not made is
-- told once it has ended.
ALTER TABLE api_file DROP CONSTRAINT api_file_purpose_check;
ALTER TABLE api_file ADD CONSTRAINT api_file_purpose_check CHECK (purpose IN ('batch', 'batch_output', 'message_batch'));
ALTER TABLE batch ADD COLUMN cancelled int NOT NULL DEFAULT 0, ADD COLUMN expired int NOT NULL DEFAULT 0,
  ADD COLUMN deleted_at timestamptz;
