"""The words of OpenTelemetry's GenAI conventions for our endpoints and providers, the same in spans and metrics."""

from __future__ import annotations

OPERATIONS = {
    "chat.completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "images.generations": "generate_content",
    "images.edits": "generate_content",
    "images.variations": "generate_content",
    "audio.speech": "generate_content",
    "audio.transcriptions": "generate_content",
    "audio.translations": "generate_content",
    "realtime": "generate_content",
    "search": "retrieval",
    "mcp": "execute_tool",
}
"""Endpoint -> `gen_ai.operation.name`; an endpoint for which the conventions have no word is its own name."""
PROVIDERS = {
    "azure": "azure.ai.openai",
    "azureopenai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "amazon": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
    "x-ai": "x_ai",
}
"""First part of a model's name -> `gen_ai.provider.name` where it is another word."""


def named_model(model: str) -> tuple[str, str]:
    """(`gen_ai.provider.name`, `gen_ai.request.model`) of a model's name."""
    provider, _, name = model.partition("/")
    return PROVIDERS.get(provider, provider), name or model
