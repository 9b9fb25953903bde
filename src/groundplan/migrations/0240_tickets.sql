-- Which calls worked on which ticket of a ticket system, as their callers said it (header `groundplan-ticket`), and what
-- became of it: many calls, one ticket, one outcome. Cost and count stay here when the calls themselves are archived.
CREATE TABLE ticket_call (
  call_id uuid PRIMARY KEY, ticket text NOT NULL, workload text NOT NULL, at timestamptz NOT NULL,
  asked boolean NOT NULL,   -- an answered call of the caller's own, not one that the gateway made for it
  cost_usd numeric(30,12) NOT NULL);
CREATE INDEX ticket_call_ticket ON ticket_call (ticket, workload, at DESC);

CREATE FUNCTION note_tickets() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO ticket_call
    SELECT id, detail ->> 'ticket', workload, at, status = 'ok' AND NOT detail ? 'of', cost_usd
    FROM added WHERE detail ? 'ticket' ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER call_added_ticket AFTER INSERT ON call REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION note_tickets();

-- The outcome of a ticket is that of one of its calls in each workload that worked on it, always the same one: so it counts
-- once, whatever happens to the ticket later.
ALTER TABLE outcome ADD COLUMN ticket text;
CREATE INDEX outcome_ticket ON outcome (ticket, at DESC) WHERE ticket IS NOT NULL;

-- told_as: new, same (it was told before), differs (under this event something else was told), waiting (it is open, and was
-- never resolved: nothing to take back). No row: no call worked on it.
CREATE FUNCTION tell_ticket(
  of_ticket text, of_workload text, event text, is_accepted boolean, worth numeric, told_at timestamptz, actor text,
  only_back boolean, OUT told_id uuid, OUT told_call uuid, OUT told_workload text, OUT told_as text)
RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE was outcome; gave numeric;
BEGIN
  PERFORM pg_advisory_xact_lock(240, hashtext(of_ticket));
  FOR told_workload IN
    SELECT DISTINCT t.workload FROM ticket_call t
    WHERE t.ticket = of_ticket AND (of_workload IS NULL OR t.workload = of_workload) ORDER BY 1
  LOOP
    told_id := md5(of_ticket || E'\n' || event || E'\n' || told_workload)::uuid;
    SELECT o.call_id INTO told_call FROM outcome o JOIN ticket_call t ON t.call_id = o.call_id
      WHERE o.ticket = of_ticket AND t.workload = told_workload LIMIT 1;
    IF told_call IS NULL THEN
      SELECT t.call_id INTO told_call FROM ticket_call t WHERE t.ticket = of_ticket AND t.workload = told_workload
        ORDER BY t.asked DESC, t.at <= told_at DESC, t.at DESC, t.call_id DESC LIMIT 1;
    END IF;
    SELECT * INTO was FROM outcome o WHERE o.id = told_id;
    gave := worth;
    IF was.id IS NOT NULL THEN
      told_as := CASE WHEN was.accepted = is_accepted AND (worth IS NULL OR was.value_usd = worth) THEN 'same' ELSE 'differs' END;
    ELSIF only_back AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.call_id = told_call AND o.ticket = of_ticket AND o.accepted) THEN
      told_as := 'waiting';
    ELSE
      -- what is not resolved any more gives back what it was worth
      IF NOT is_accepted AND gave IS NULL AND EXISTS (SELECT 1 FROM outcome o WHERE o.call_id = told_call AND o.value_usd > 0) THEN
        gave := 0;
      END IF;
      INSERT INTO outcome (id, call_id, at, accepted, value_usd, label, by, ticket)
        VALUES (told_id, told_call, told_at, is_accepted, gave, 'ticket ' || of_ticket, actor, of_ticket);
      told_as := 'new';
    END IF;
    RETURN NEXT;
  END LOOP;
END $$;

-- Who was stopped by a budget is looked at each minute, among very many calls that were not.
CREATE INDEX call_budget_refused ON call (at) WHERE error_code = 'budget_exhausted';

-- rights ------------------------------------------------------------------------------------------------------------------------
GRANT SELECT ON ticket_call TO %(db)s_control;
REVOKE ALL ON FUNCTION tell_ticket FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tell_ticket TO %(db)s_control, %(db)s_gateway;
