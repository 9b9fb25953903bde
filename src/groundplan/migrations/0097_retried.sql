-- Attempts after the first are few: what retries came to is read without reading every attempt.
CREATE INDEX attempt_retried ON attempt (at) WHERE number > 0;
