-- Why a response that is made in the background could not be made yet (a refusal that passes: code, message, hint), and when it
-- is tried again. Whoever runs the company may cancel one. And names of files go with whom they are erased for.
ALTER TABLE background_response ADD COLUMN due timestamptz, ADD COLUMN waits jsonb;
DROP INDEX background_response_open;
CREATE INDEX background_response_open ON background_response (status, (coalesce(due, at)))
  WHERE status IN ('queued', 'in_progress');
GRANT UPDATE (due, waits) ON background_response TO %(db)s_gateway;
GRANT UPDATE (status) ON background_response TO %(db)s_control;
GRANT UPDATE (filename) ON api_file TO %(db)s_control;
GRANT DELETE ON api_upload TO %(db)s_control;
