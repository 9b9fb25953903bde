-- Approvals of evidence and of how far a workload reaches bite. `approval`: digest of the change that asks for a piece of
-- evidence; where the company has evidence approved, it counts while that change is applied. Gateways see rollouts, too.
ALTER TABLE evidence ADD COLUMN approval text;
CREATE INDEX change_of_evidence ON change (digest) WHERE type = 'evidence';
CREATE OR REPLACE VIEW part_approval AS
  SELECT digest, state, expires_on, grace_until FROM change
  WHERE type IN ('model', 'prompt', 'data', 'rollout') AND state IN ('applied', 'withdrawn', 'expired')
    AND expires_on IS NOT NULL;
DROP INDEX change_of_part;
CREATE INDEX change_of_part ON change (type) WHERE type IN ('model', 'prompt', 'data', 'rollout');
