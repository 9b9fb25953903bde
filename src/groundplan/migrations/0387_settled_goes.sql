-- What was granted of budgets and given back is kept until nothing follows from it any more: each movement was told once, by an id,
-- and its worker's journal is taken over whole. Slices of such workers go with their periods, lines of a batch once the facts of
-- their calls have left for an archive, which knows their sums. All of these only grew.
CREATE INDEX budget_movement_at ON budget_movement USING brin (at) WITH (autosummarize = true);

-- Some of what is older than `before`, how many rows; `over`: periods that ended before that.
CREATE FUNCTION forget_settled(before timestamptz, over text[]) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE n bigint; gone bigint := 0; settled uuid[];
BEGIN
  SELECT array_agg(g.epoch) INTO settled FROM gateway g LEFT JOIN shipped h USING (epoch)
    WHERE g.state <> 'live' AND g.heartbeat_at < before AND coalesce(h.done, g.host = 'batch')
      AND NOT EXISTS (SELECT FROM budget_slice s WHERE s.epoch = g.epoch AND NOT s.closed);
  DELETE FROM budget_movement m WHERE m.ctid = ANY(ARRAY(
    SELECT o.ctid FROM budget_movement o WHERE o.at < before AND o.epoch = ANY(settled) LIMIT 10000));
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
  RETURN gone + n;
END $$;
REVOKE ALL ON FUNCTION forget_settled(timestamptz, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_settled(timestamptz, text[]) TO %(db)s_control;

-- Calls at the same time have no window that ends: what a dead worker held of them went back, and goes with it. Each worker that
-- ever was had left a row for each user with such a limit.
CREATE OR REPLACE FUNCTION close_limits(who uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine text; held bigint;
BEGIN
  FOR mine IN SELECT s.name FROM limit_slice s WHERE s.epoch = who AND s.span = 'now' AND NOT s.closed
      ORDER BY s.name COLLATE "C" LOOP
    PERFORM 1 FROM limit_span s WHERE s.name = mine AND s.span = 'now' FOR UPDATE;
    SELECT s.granted - s.released INTO held FROM limit_slice s
      WHERE s.epoch = who AND s.name = mine AND s.span = 'now' AND NOT s.closed;
    UPDATE limit_span s SET granted = s.granted - held WHERE s.name = mine AND s.span = 'now' AND held <> 0;
    DELETE FROM limit_slice s WHERE s.epoch = who AND s.name = mine AND s.span = 'now' AND NOT s.closed;
  END LOOP;
  UPDATE limit_slice s SET closed = true WHERE s.epoch = who AND NOT s.closed;
END $$;
GRANT DELETE ON limit_slice TO %(db)s_shipper;
DELETE FROM limit_slice WHERE span = 'now' AND closed;
