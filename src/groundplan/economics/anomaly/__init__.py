"""What is unusual in spending, found within minutes, with its cause and a known rate of false alarms."""
