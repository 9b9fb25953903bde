"""OpenAI's Responses: `surface` is the endpoint, the others read, translate, stream and store for it."""
