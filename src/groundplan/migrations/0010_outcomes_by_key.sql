-- An application reports with its API key, at a gateway, what a call of its workload was worth.
GRANT SELECT (id) ON call TO %(db)s_gateway;
CREATE INDEX outcome_call ON outcome (call_id);
