-- Attempts whose upstream refused the request as wrong are few: how many of the failed attempts of the last minutes say
-- nothing about their deployment is read without reading every attempt.
CREATE INDEX attempt_wrong_request ON attempt (at) WHERE outcome <> 'ok' AND http_status IN (400, 413, 422);
