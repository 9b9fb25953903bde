"""From declared documents to the draft of a blueprint: `draft` is the whole, each other module one subject of it."""
