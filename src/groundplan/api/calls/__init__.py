"""Calls as the control process shows them and makes them: receipts, live calls, the playground, replays."""
