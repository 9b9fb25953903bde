-- A call that was written off, since nobody had its journal, costs what that tells of further attempts once somebody brings it after
-- all: these were in the books of attempts and of budgets, and in no sum of calls.
CREATE FUNCTION roll_cost() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE more numeric := NEW.cost_usd - OLD.cost_usd; day timestamptz := date_bin('1 day', NEW.at, '2000-01-01 00:00+00');
BEGIN
  INSERT INTO call_step_delta VALUES (
    date_bin('10 seconds', NEW.at, '2000-01-01 00:00+00'), NEW.workload, coalesce(NEW.deployment, ''), NEW.status, 0, more);
  INSERT INTO call_delta VALUES (
    date_bin('1 hour', NEW.at, '2000-01-01 00:00+00'), NEW.workload, coalesce(NEW.team, ''), NEW.demo, NEW.blueprint,
    coalesce(NEW.model, ''), coalesce(NEW.deployment, ''), coalesce(NEW.site, ''), NEW.endpoint, NEW.status, NEW.cache,
    coalesce(NEW.detail ->> 'feature', ''), 0, more, 0, 0, 0, 0);
  IF NEW.status <> 'refused' THEN
    INSERT INTO person_delta VALUES (
      day, NEW.workload, coalesce(NEW.person_id, '00000000-0000-0000-0000-000000000000'),
      coalesce(NEW.key_id, '00000000-0000-0000-0000-000000000000'), NEW.demo, 0, more, 0, 0);
    IF coalesce(NEW.detail -> 'sources', '[]') = '[]' THEN
      INSERT INTO document_delta VALUES (day, NEW.workload, '', NEW.demo, 0, more);
    ELSE
      INSERT INTO document_delta
        SELECT day, NEW.workload, s.document, NEW.demo, 0, sum(s.share)
        FROM document_shares(more, NEW.detail -> 'sources') s GROUP BY s.document;
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER call_costs_more AFTER UPDATE OF cost_usd ON call FOR EACH ROW
  WHEN (NEW.cost_usd IS DISTINCT FROM OLD.cost_usd) EXECUTE FUNCTION roll_cost();
