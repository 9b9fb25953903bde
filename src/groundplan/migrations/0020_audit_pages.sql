CREATE INDEX audit_without_calls ON audit_entry (id DESC) WHERE action <> 'call';   -- the first page of the log, however many calls there are
