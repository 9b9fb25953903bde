-- a line of a batch whose attempts all were refused unbilled may be made by whoever comes next
GRANT SELECT (outcome) ON attempt TO %(db)s_gateway;
