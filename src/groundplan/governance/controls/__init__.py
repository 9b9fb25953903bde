"""Controls of frameworks, the evidence that satisfies them, and how far each workload is."""
