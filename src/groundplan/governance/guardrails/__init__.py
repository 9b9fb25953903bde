"""Checks of what is sent to models and of what they answer: pure functions over text, run by the gateway."""
