-- What a HOME that was declared lost tells once it is back: an attempt that stood open cost what its journal says instead of its
-- bound, in the sums of budgets, too; and a call that has left for an archive costs more, in all sums of calls.
CREATE FUNCTION roll_more(c call, more numeric) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE day timestamptz := date_bin('1 day', c.at, '2000-01-01 00:00+00');
BEGIN
  INSERT INTO call_step_delta VALUES (
    date_bin('10 seconds', c.at, '2000-01-01 00:00+00'), c.workload, coalesce(c.deployment, ''), c.status, 0, more);
  INSERT INTO call_delta VALUES (
    date_bin('1 hour', c.at, '2000-01-01 00:00+00'), c.workload, coalesce(c.team, ''), c.demo, c.blueprint,
    coalesce(c.model, ''), coalesce(c.deployment, ''), coalesce(c.site, ''), c.endpoint, c.status, c.cache,
    coalesce(c.detail ->> 'feature', ''), 0, more, 0, 0, 0, 0);
  IF c.status <> 'refused' THEN
    INSERT INTO person_delta VALUES (
      day, c.workload, coalesce(c.person_id, '00000000-0000-0000-0000-000000000000'),
      coalesce(c.key_id, '00000000-0000-0000-0000-000000000000'), c.demo, 0, more, 0, 0);
    IF coalesce(c.detail -> 'sources', '[]') = '[]' THEN
      INSERT INTO document_delta VALUES (day, c.workload, '', c.demo, 0, more);
    ELSE -- shares are of what is positive: what is left of a division goes to the first ones
      INSERT INTO document_delta
        SELECT day, c.workload, s.document, c.demo, 0, sign(more) * sum(s.share)
        FROM document_shares(abs(more), c.detail -> 'sources') s GROUP BY s.document;
    END IF;
  END IF;
END $$;
REVOKE ALL ON FUNCTION roll_more FROM PUBLIC;
GRANT EXECUTE ON FUNCTION roll_more TO %(db)s_shipper;

CREATE OR REPLACE FUNCTION roll_cost() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  PERFORM roll_more(NEW, NEW.cost_usd - OLD.cost_usd);
  RETURN NULL;
END $$;

CREATE FUNCTION roll_charge() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO charge_delta VALUES (NEW.budget, NEW.period, NEW.cost_usd - OLD.cost_usd);
  RETURN NULL;
END $$;
CREATE TRIGGER charge_corrected AFTER UPDATE OF cost_usd ON charge FOR EACH ROW
  WHEN (NEW.cost_usd IS DISTINCT FROM OLD.cost_usd) EXECUTE FUNCTION roll_charge();
