"""HTTP on the callers' side: the server, bodies, streams and forms, cut anywhere."""
