-- Numbers of the policy come by this function alone, whoever asks for one. Who may write to its tables could set the number so
-- high that none comes after it: nothing could be stopped or revoked any more.
CREATE OR REPLACE FUNCTION next_policy_number(kind text, subject text, stops boolean) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE n bigint;
BEGIN
  UPDATE policy_epoch SET number = number + 1 RETURNING number INTO n;
  INSERT INTO policy_change (number, kind, subject, stops) VALUES (n, kind, subject, stops);
  PERFORM pg_notify('groundplan_policy', n::text);
  RETURN n;
END $$;
REVOKE ALL ON FUNCTION next_policy_number FROM PUBLIC;
GRANT EXECUTE ON FUNCTION next_policy_number TO %(db)s_control, %(db)s_shipper;
REVOKE ALL ON policy_epoch, policy_change FROM %(db)s_shipper;
REVOKE INSERT, UPDATE, DELETE ON policy_epoch, policy_change FROM %(db)s_control;

-- An entry of the audit log gets its place, and its number in the queue, of nobody who writes it: one that had the next place
-- already would keep all others out for good.
REVOKE INSERT ON audit_entry FROM %(db)s_shipper;
GRANT INSERT (id, at, action, actor, subject, body) ON audit_entry TO %(db)s_shipper;

-- The shipper knows no keys and no people, search no names of people, and what they may read as `acl` alone says it.
REVOKE SELECT ON person, api_key FROM %(db)s_shipper;
REVOKE USAGE ON SEQUENCE chunk_change FROM %(db)s_shipper;
REVOKE SELECT ON document_reader, source, person FROM %(db)s_search;
GRANT SELECT (id, email, active) ON person TO %(db)s_search;
