-- A worker is dead and fenced. What it held of windows counts as used until they end, so these are closed as they are, at once and
-- without their spans, which others are granted of meanwhile; only its concurrent calls are given back, one limit after the other.
CREATE OR REPLACE FUNCTION close_limits(who uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mine limit_slice;
BEGIN
  FOR mine IN SELECT * FROM limit_slice s WHERE s.epoch = who AND s.span = 'now' AND NOT s.closed ORDER BY s.name LOOP
    UPDATE limit_span s SET granted = s.granted - (mine.granted - mine.released)
      WHERE s.name = mine.name AND s.span = mine.span;
    UPDATE limit_slice s SET released = s.granted WHERE s.epoch = who AND s.name = mine.name AND s.span = mine.span;
  END LOOP;
  UPDATE limit_slice s SET closed = true WHERE s.epoch = who AND NOT s.closed;
END $$;
