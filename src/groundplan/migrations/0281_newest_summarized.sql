-- Newest pages are summarized as they fill (0278, 0003), but only when a vacuum comes by, once a minute or later: until then all
-- of them are read by whoever asks for a time within an hour. Now it is also done where sums are folded.
CREATE FUNCTION summarize_newest() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$
  SELECT brin_summarize_new_values('attempt_at') + brin_summarize_new_values('call_shipped')
$$;
REVOKE ALL ON FUNCTION summarize_newest() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION summarize_newest() TO %(db)s_control;
