-- The oldest row of each workload, of each kind, is what a look for rows that have to go reads: twice a minute all that is
-- kept was read for it, with the sealed text of each.
DROP INDEX content_workload;
CREATE INDEX content_workload ON content (workload, kind, at);
CREATE INDEX stored_response_workload ON stored_response (workload, at);
CREATE INDEX stored_completion_workload ON stored_completion (workload, at);
