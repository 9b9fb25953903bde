"""Human review: answers that are held before they are sent, and dangerous tool calls."""
