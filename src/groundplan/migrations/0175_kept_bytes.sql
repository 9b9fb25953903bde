-- What is kept, sampled once a day: storage is priced over the days on which it was there, not by what is kept now. A day is
-- written once and never changed; a sampled day without a row of a workload kept nothing of it.
CREATE TABLE kept_day (day date PRIMARY KEY, sampled_at timestamptz NOT NULL);
CREATE TABLE kept_bytes (
  day date NOT NULL REFERENCES kept_day,
  kind text NOT NULL CHECK (kind IN ('documents', 'content')),
  workload text NOT NULL, -- '': documents that no workload is given
  source text NOT NULL DEFAULT '',
  bytes bigint NOT NULL CHECK (bytes >= 0),
  PRIMARY KEY (day, kind, workload, source));
GRANT SELECT, INSERT ON kept_day, kept_bytes TO %(db)s_control;
