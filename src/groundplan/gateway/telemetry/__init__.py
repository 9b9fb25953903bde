"""What is seen from outside: metrics, traces, and prompts and answers that are kept."""
