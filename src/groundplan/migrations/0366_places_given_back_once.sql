-- What a worker that is dead now told last may still be on its way: how many calls at the same time it has left is known once their
-- span is locked. It was read before that, so that what was on its way went back twice, and more were admitted for good.
CREATE OR REPLACE FUNCTION close_limits(who uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine text; held bigint;
BEGIN
  FOR mine IN SELECT s.name FROM limit_slice s WHERE s.epoch = who AND s.span = 'now' AND NOT s.closed ORDER BY s.name LOOP
    PERFORM 1 FROM limit_span s WHERE s.name = mine AND s.span = 'now' FOR UPDATE;
    SELECT s.granted - s.released INTO held FROM limit_slice s
      WHERE s.epoch = who AND s.name = mine AND s.span = 'now' AND NOT s.closed;
    UPDATE limit_span s SET granted = s.granted - held WHERE s.name = mine AND s.span = 'now' AND held <> 0;
    UPDATE limit_slice s SET released = s.granted WHERE s.epoch = who AND s.name = mine AND s.span = 'now' AND NOT s.closed;
  END LOOP;
  UPDATE limit_slice s SET closed = true WHERE s.epoch = who AND NOT s.closed;
END $$;
