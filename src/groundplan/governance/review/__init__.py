"""What waits for a person: answers before they are sent, and tool calls that are dangerous."""
