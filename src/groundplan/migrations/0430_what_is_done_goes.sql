-- As 0387 has it, and with what it forgets of a worker go the row of the worker itself (each that ever was, and one for each
-- batch), how many calls it made on a day, of which only today is ever read, and what it was charged of facts that have left,
-- which is read as its books are closed.
CREATE OR REPLACE FUNCTION forget_settled(before timestamptz, over text[]) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE n bigint; gone bigint := 0; settled uuid[];
BEGIN
  SELECT array_agg(g.epoch) INTO settled FROM gateway g LEFT JOIN shipped h USING (epoch)
    WHERE g.state <> 'live' AND g.heartbeat_at < before AND coalesce(h.done, g.host = 'batch')
      AND NOT EXISTS (SELECT FROM budget_slice s WHERE s.epoch = g.epoch AND NOT s.closed);
  -- a journal that came later than its worker went told of movements then
  DELETE FROM budget_movement m WHERE m.ctid = ANY(ARRAY(
    SELECT o.ctid FROM budget_movement o WHERE o.at < before
      AND (o.epoch = ANY(settled) OR NOT EXISTS (SELECT FROM gateway g WHERE g.epoch = o.epoch)) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM budget_slice s WHERE s.ctid = ANY(ARRAY(
    SELECT o.ctid FROM unnest(settled) e (epoch) JOIN budget_slice o USING (epoch) WHERE o.period = ANY(over) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM batch_line l WHERE l.ctid = ANY(ARRAY(
    SELECT o.ctid FROM batch b JOIN batch_line o ON o.batch_id = b.id
    WHERE b.ended_at < before AND b.ended_at < (SELECT max(d.day) FROM archived_day d) AND b.id = ANY(settled)
      AND NOT EXISTS (SELECT FROM attempt a WHERE a.call_id = o.call_id) LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM worker_day w WHERE w.ctid = ANY(ARRAY(
    SELECT o.ctid FROM worker_day o WHERE o.day < (before AT TIME ZONE 'UTC')::date LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  DELETE FROM archived_charge c WHERE c.ctid = ANY(ARRAY(
    SELECT o.ctid FROM archived_charge o JOIN shipped h USING (epoch) WHERE h.done LIMIT 10000));
  GET DIAGNOSTICS n = ROW_COUNT;
  gone := gone + n;
  -- last, once nothing else of them is left that goes by their rows
  SELECT array_agg(e.epoch) INTO settled FROM (
    SELECT s.epoch FROM unnest(settled) s (epoch)
    WHERE NOT EXISTS (SELECT FROM budget_slice o WHERE o.epoch = s.epoch)
      AND NOT EXISTS (SELECT FROM limit_slice o WHERE o.epoch = s.epoch)
      AND NOT EXISTS (SELECT FROM batch_line o WHERE o.batch_id = s.epoch) LIMIT 10000) e;
  DELETE FROM lost_worker l WHERE l.epoch = ANY(settled);
  DELETE FROM gateway g WHERE g.epoch = ANY(settled);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN gone + n;
END $$;

-- Those that serve are asked for by every page and every stop, of all that ever were; a key's line as each key is made.
CREATE INDEX gateway_live ON gateway (epoch) WHERE state = 'live';
CREATE INDEX api_key_family ON api_key (family);
