"""The MCP endpoint of the gateway: declared servers behind the same keys, rules, limits and records as model calls."""
