"""What governs a call on its way: company rules, guardrails, and answers that wait for a person."""
