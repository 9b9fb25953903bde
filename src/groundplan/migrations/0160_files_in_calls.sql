-- Files that calls name by their ids, beside those of batches.
ALTER TABLE api_file DROP CONSTRAINT api_file_purpose_check;
ALTER TABLE api_file ADD CONSTRAINT api_file_purpose_check CHECK (
  purpose IN ('batch', 'batch_output', 'message_batch', 'user_data', 'vision', 'assistants'));
