-- What was said last of each ticket, by workload, kept as it is told: so that the tickets of some days are found by when that
-- was, and not in all outcomes of every ticket. Acceptance and value each count as the newest outcome that says them (0205).
CREATE TABLE ticket_told (
  ticket text NOT NULL, workload text NOT NULL, at timestamptz NOT NULL, id uuid NOT NULL, accepted boolean,
  value_usd numeric(30,12), value_at timestamptz, value_id uuid, PRIMARY KEY (ticket, workload));
CREATE INDEX ticket_told_at ON ticket_told (at);

CREATE FUNCTION note_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO ticket_told AS k
    SELECT NEW.ticket, t.workload, NEW.at, NEW.id, NEW.accepted, NEW.value_usd,
      CASE WHEN NEW.value_usd IS NOT NULL THEN NEW.at END, CASE WHEN NEW.value_usd IS NOT NULL THEN NEW.id END
    FROM ticket_call t WHERE t.call_id = NEW.call_id
    ON CONFLICT (ticket, workload) DO NOTHING;
  UPDATE ticket_told k SET at = NEW.at, id = NEW.id, accepted = NEW.accepted FROM ticket_call t
    WHERE t.call_id = NEW.call_id AND k.ticket = NEW.ticket AND k.workload = t.workload AND (NEW.at, NEW.id) > (k.at, k.id);
  UPDATE ticket_told k SET value_usd = NEW.value_usd, value_at = NEW.at, value_id = NEW.id FROM ticket_call t
    WHERE NEW.value_usd IS NOT NULL AND t.call_id = NEW.call_id AND k.ticket = NEW.ticket AND k.workload = t.workload
      AND (k.value_id IS NULL OR (NEW.at, NEW.id) > (k.value_at, k.value_id));
  RETURN NULL;
END $$;
CREATE TRIGGER outcome_of_ticket AFTER INSERT ON outcome FOR EACH ROW WHEN (NEW.ticket IS NOT NULL)
  EXECUTE FUNCTION note_told();

-- what the calls of a ticket cost is read from the index alone
DROP INDEX ticket_call_ticket;
CREATE INDEX ticket_call_ticket ON ticket_call (ticket, workload, at DESC) INCLUDE (asked, cost_usd);

-- what is there already
INSERT INTO ticket_told (ticket, workload, at, id, accepted)
  SELECT DISTINCT ON (o.ticket, t.workload) o.ticket, t.workload, o.at, o.id, o.accepted
  FROM outcome o JOIN ticket_call t ON t.call_id = o.call_id WHERE o.ticket IS NOT NULL
  ORDER BY o.ticket, t.workload, o.at DESC, o.id DESC;
UPDATE ticket_told k SET value_usd = w.value_usd, value_at = w.at, value_id = w.id
  FROM (SELECT DISTINCT ON (o.ticket, t.workload) o.ticket, t.workload, o.value_usd, o.at, o.id
        FROM outcome o JOIN ticket_call t ON t.call_id = o.call_id WHERE o.ticket IS NOT NULL AND o.value_usd IS NOT NULL
        ORDER BY o.ticket, t.workload, o.at DESC, o.id DESC) w
  WHERE k.ticket = w.ticket AND k.workload = w.workload;

GRANT SELECT ON ticket_told TO %(db)s_control;
