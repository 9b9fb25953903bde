-- An exception from a company rule waits for its approvals as a change of the same id. Here stays only what gateways ask of
-- it; who asked, who decided and why are the change's. One that was decided before keeps what one person said.
INSERT INTO change (id, digest, type, base, sources, summary, needs, requested_by, requested_at, state, decided_at, expires_on,
    grace_until, reason)
  SELECT e.id, encode(sha256(convert_to('exception ' || e.id, 'UTF8')), 'hex'), 'exception', 0, '{}',
    jsonb_build_object('subject', 'workload/' || e.workload, 'fields', jsonb_build_array(
      jsonb_build_object('field', 'person', 'old', NULL, 'new', coalesce(p.id::text, CASE e.person WHEN '' THEN 'everybody' ELSE 'somebody' END)),
      jsonb_build_object('field', 'rule', 'old', NULL, 'new', e.rule),
      jsonb_build_object('field', 'until', 'old', NULL, 'new', to_char(e.until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')))),
    CASE WHEN e.state = 'asked' THEN jsonb_build_array(jsonb_build_object('subject', 'company', 'duty', 'security'),
        jsonb_build_object('subject', 'company', 'duty', 'compliance'))
      ELSE jsonb_build_array(jsonb_build_object('subject', 'company', 'duty', 'security')) END,
    e.asked_by, e.asked_at,
    CASE e.state WHEN 'asked' THEN 'pending' WHEN 'approved' THEN 'applied' WHEN 'refused' THEN 'refused' ELSE 'withdrawn' END,
    e.decided_at, CASE WHEN e.state IN ('approved', 'ended') THEN (e.until AT TIME ZONE 'UTC')::date END,
    CASE WHEN e.state IN ('approved', 'ended') THEN (e.until AT TIME ZONE 'UTC')::date END, e.reason
  FROM policy_exception e LEFT JOIN person p ON p.email = e.person;
INSERT INTO approval (id, change_id, digest, duty, subject, person_id, decision, comment, unseparated, at)
  SELECT gen_random_uuid(), c.id, c.digest, 'security', 'company', p.id,
    CASE e.state WHEN 'refused' THEN 'refused' ELSE 'approved' END, coalesce(e.decided_reason, ''), e.decided_by = e.asked_by,
    coalesce(e.decided_at, now())
  FROM policy_exception e JOIN change c ON c.id = e.id JOIN person p ON 'person:' || p.id = e.decided_by
  WHERE e.state <> 'asked';

DROP INDEX policy_exception_open;
ALTER TABLE policy_exception DROP COLUMN reason, DROP COLUMN asked_by, DROP COLUMN asked_at, DROP COLUMN state,
  DROP COLUMN decided_by, DROP COLUMN decided_at, DROP COLUMN decided_reason,
  ADD CONSTRAINT policy_exception_change FOREIGN KEY (id) REFERENCES change;
CREATE INDEX policy_exception_open ON policy_exception (until);
-- What gateways read: approved, and not over.
CREATE VIEW exception_held AS
  SELECT e.rule, e.workload, e.person, e.until FROM policy_exception e JOIN change c ON c.id = e.id
  WHERE c.state = 'applied' AND e.until > now();
REVOKE SELECT ON policy_exception FROM %(db)s_gateway;
GRANT SELECT ON exception_held TO %(db)s_gateway;
