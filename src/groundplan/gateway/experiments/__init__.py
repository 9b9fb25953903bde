"""What is tried on calls: arms of a test, a second answer beside the one that is shown, replays of kept calls."""
