-- The approval of a model knows what the model cost then; gateways hold it against what it costs now.
CREATE OR REPLACE VIEW part_approval AS
  SELECT digest, state, expires_on, grace_until, summary -> 'price' AS price FROM change
  WHERE type IN ('model', 'prompt', 'data', 'rollout') AND state IN ('applied', 'withdrawn', 'expired')
    AND expires_on IS NOT NULL;
