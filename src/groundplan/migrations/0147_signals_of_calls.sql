-- The gateway keeps what it is told of search in use, and that a call found nothing; it reads none of it back.
GRANT INSERT ON knowledge_signal TO %(db)s_gateway;
