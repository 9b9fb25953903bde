"""The schema in numbered steps, each an SQL file with its step in `versions`; `runtime` applies them."""
