-- What gateways know of approvals of models, prompts and sources for a purpose: which hold, and which held once.
CREATE VIEW part_approval AS
  SELECT digest, state, expires_on, grace_until FROM change
  WHERE type IN ('model', 'prompt', 'data') AND state IN ('applied', 'withdrawn', 'expired') AND expires_on IS NOT NULL;
CREATE INDEX change_of_part ON change (type) WHERE type IN ('model', 'prompt', 'data');
GRANT SELECT ON part_approval TO %(db)s_gateway, %(db)s_control;
