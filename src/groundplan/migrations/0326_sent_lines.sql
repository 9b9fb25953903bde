-- whether anything was sent for a line of a batch says its attempts: a call that only waited has none
GRANT SELECT (call_id) ON attempt TO %(db)s_gateway;
