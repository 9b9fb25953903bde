"""`/v1/realtime`: a conversation over WebSocket, each response of which is a call. `conversation` puts it together."""
