-- Whose call an outcome is of, so that what was said of one workload is found without looking at the calls of all others.
ALTER TABLE outcome ADD COLUMN workload text;
UPDATE outcome o SET workload = c.workload FROM call c WHERE c.id = o.call_id;
UPDATE outcome o SET workload = t.workload FROM ticket_call t WHERE t.call_id = o.call_id AND o.workload IS NULL;
CREATE INDEX outcome_of_workload ON outcome (workload, at DESC) WHERE accepted IS NOT NULL;

CREATE FUNCTION outcome_of() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  NEW.workload := coalesce((SELECT workload FROM call WHERE id = NEW.call_id),
    (SELECT workload FROM ticket_call WHERE call_id = NEW.call_id));
  RETURN NEW;
END $$;
CREATE TRIGGER outcome_of_call BEFORE INSERT ON outcome FOR EACH ROW EXECUTE FUNCTION outcome_of();
