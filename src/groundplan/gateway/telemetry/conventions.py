"""The terms of OpenTelemetry's GenAI conventions for our endpoints and providers, the same in spans and metrics."""

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
"""Endpoint -> `gen_ai.operation.name`; an endpoint without a term in the conventions keeps its own name."""
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
"""First part of a model's name -> `gen_ai.provider.name` where that differs."""


def provider_and_model(model: str) -> tuple[str, str]:
    """Return (`gen_ai.provider.name`, `gen_ai.request.model`) for the name of a model."""
    provider, _, name = model.partition("/")
    return PROVIDERS.get(provider, provider), name or model
