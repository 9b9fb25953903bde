-- Who erases documents may also have their tables written anew, which is what takes the last bytes of them off the disk.
-- PostgreSQL before 17 has no such right: there the owner of the database does it.
DO $$ BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON chunk, document, document_version, document_reader, pushed TO %(db)s_control';
  END IF;
END $$;
GRANT UPDATE (data, told) ON pushed TO %(db)s_control;
