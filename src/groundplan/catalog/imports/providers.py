"""Facts about providers, by the prefix of model names in other gateways: address, key variable, jurisdiction, prices.

Base URLs and variables are from each provider's own documentation, named beside it. A provider without a base URL has
no OpenAI-compatible API at one address. Knows no configuration format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import get_args
from urllib.parse import urlsplit

from groundplan.catalog.model import DeploymentDoc

LOCAL = ("localhost", "host.docker.internal")
UNKNOWN = "UNKNOWN"
"""A jurisdiction that no residency includes, so that data with a residency is not sent there until it is corrected."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider of a prefix such as `groq/`."""

    url: str | None = None
    """Base URL of its OpenAI-compatible API."""
    key: str | None = None
    """Environment variable from which its clients read the key."""
    prices: str | None = None
    """Its name in the price list; None: its models have no public price."""
    own_host: bool = False
    """Whether it is an OpenAI-compatible server at an address of the user's choice."""
    suffix: str = ""
    """Path of the API below the address of such a server."""
    api: str | None = None
    """Its own API, if that is not OpenAI's."""


PROVIDERS: dict[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", "openai"),  # platform.openai.com/docs
    "text-completion-openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", "openai"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY", "groq"),  # console.groq.com/docs/openai
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral", suffix="/v1"),  # docs.mistral.ai/api
    "gemini": Provider(  # ai.google.dev/gemini-api/docs/openai
        "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", "google"
    ),
    "cohere": Provider(  # docs.cohere.com/docs/compatibility-api
        "https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "cohere"
    ),
    "cohere_chat": Provider("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "cohere"),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "deepseek"),  # api-docs.deepseek.com
    "together_ai": Provider(  # docs.together.ai/docs/openai-api-compatibility
        "https://api.together.xyz/v1", "TOGETHERAI_API_KEY", "together"
    ),
    "fireworks_ai": Provider(  # docs.fireworks.ai/tools-sdks/openai-compatibility
        "https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY", "fireworks"
    ),
    "openrouter": Provider(  # openrouter.ai/docs/quickstart
        "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "openrouter"
    ),
    "perplexity": Provider("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY", "perplexity"),  # docs.perplexity.ai
    "xai": Provider("https://api.x.ai/v1", "XAI_API_KEY", "x-ai"),  # docs.x.ai/docs/api-reference
    "cerebras": Provider(  # inference-docs.cerebras.ai/resources/openai
        "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "cerebras"
    ),
    "nvidia_nim": Provider(  # docs.api.nvidia.com/nim
        "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"
    ),
    "deepinfra": Provider(  # deepinfra.com/docs/openai_api
        "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"
    ),
    "sambanova": Provider("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),  # docs.sambanova.ai
    "moonshot": Provider("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "moonshotai"),  # platform.moonshot.ai/docs
    "dashscope": Provider(  # alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"
    ),
    "zai": Provider("https://api.z.ai/api/paas/v4", "ZAI_API_KEY", "zai"),  # docs.z.ai/guides/develop/openai
    "meta_llama": Provider("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),  # llama.developer.meta.com/docs
    "ai21": Provider("https://api.ai21.com/studio/v1", "AI21_API_KEY"),  # docs.ai21.com/reference
    "novita": Provider("https://api.novita.ai/v3/openai", "NOVITA_API_KEY", "novita"),  # novita.ai/docs
    "nebius": Provider("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),  # docs.studio.nebius.com
    "jina_ai": Provider("https://api.jina.ai/v1", "JINA_AI_API_KEY"),  # jina.ai/api-dashboard
    "huggingface": Provider(  # huggingface.co/docs/inference-providers, and text-generation-inference's /v1
        "https://router.huggingface.co/v1", "HF_TOKEN", suffix="/v1"
    ),
    # learn.microsoft.com/azure/foundry/openai/api-version-lifecycle: the v1 API, which takes no api-version
    "azure": Provider(None, "AZURE_API_KEY", "azure", own_host=True, suffix="/openai/v1"),
    "azure_text": Provider(None, "AZURE_API_KEY", "azure", own_host=True, suffix="/openai/v1"),
    "azure_ai": Provider(None, "AZURE_AI_API_KEY", "azure", own_host=True, suffix="/openai/v1"),
    "databricks": Provider(None, "DATABRICKS_API_KEY", "databricks", own_host=True),
    "custom_openai": Provider(own_host=True),
    "openai_like": Provider(own_host=True),
    "litellm_proxy": Provider(own_host=True, key="LITELLM_PROXY_API_KEY"),
    "hosted_vllm": Provider(own_host=True, suffix="/v1"),  # docs.vllm.ai: OpenAI-compatible server
    "vllm": Provider(own_host=True, suffix="/v1"),
    "lm_studio": Provider("http://localhost:1234/v1", own_host=True),  # lmstudio.ai/docs/api/openai-api
    "llamafile": Provider("http://localhost:8080/v1", own_host=True),
    "xinference": Provider("http://localhost:9997/v1", own_host=True),
    "ollama": Provider("http://localhost:11434/v1", own_host=True, suffix="/v1"),  # docs.ollama.com/openai
    "ollama_chat": Provider("http://localhost:11434/v1", own_host=True, suffix="/v1"),
    "anthropic": Provider(None, "ANTHROPIC_API_KEY", "anthropic", suffix="/v1", api="anthropic"),
    "vertex_ai": Provider(None, None, "google", api="vertexai"),
    "vertex_ai_beta": Provider(None, None, "google", api="vertexai"),
    "bedrock": Provider(None, None, "aws", api="bedrock"),
    "sagemaker": Provider(None, None, None, api="sagemaker"),
    "sagemaker_chat": Provider(None, None, None, api="sagemaker"),
    "watsonx": Provider(None, "WATSONX_API_KEY", None, api="watsonx"),
    "replicate": Provider(None, "REPLICATE_API_KEY", None, api="replicate"),
    "voyage": Provider("https://api.voyageai.com/v1", "VOYAGE_API_KEY", "voyageai"),  # docs.voyageai.com/reference
}  # fmt: skip

UNLISTED = Provider(own_host=True)
"""An unknown provider: OpenAI-compatible, at an address that has to be given."""
_ROUTES = {"bedrock": ("converse/", "invoke/", "converse_like/"), "azure": ("o_series/", "gpt5_series/")}
"""Prefixes of model names that choose an API and are not part of the name."""
_BEFORE_ARN = re.compile(r"(?:[\w-]+/)+(?=arn:)", re.ASCII)
"""The same for models imported into Bedrock: `llama/arn:aws:bedrock:...`."""


_FAMILIES = (
    ("bedrock", r"(?:(?:global|apac|eu|us|us-gov|au|ca|jp)\.)?"
                r"(?:ai21|amazon|anthropic|cohere|deepseek|luma|meta|mistral|openai|qwen|stability|twelvelabs|writer)\.[a-z]"),
    ("anthropic", r"claude-"),
    ("vertex_ai", r"gemini-|medlm-|imagen-|(?:text|chat|code|codechat)-(?:bison|unicorn)|textembedding-gecko"
                  r"|text-(?:multilingual-)?embedding-00\d"),
    ("cohere", r"command(?:-|$)|embed-(?:english|multilingual)-"),
    ("ai21", r"j2-|jamba-"),
    ("openai", r"gpt-(?!oss)|chatgpt-|o\d|ft:|text-|dall-e|whisper-1|tts-|omni-|(?:davinci|babbage|curie|ada)(?:-|$)"
               r"|code-|codex|computer-use|sora-"),
)  # fmt: skip
"""Provider -> beginnings of its models' names, to recognise names without a prefix; the first match counts."""


def split_model_name(model: str, named: str | None = None, said: str | None = None) -> tuple[str, str]:
    """(provider, its name of the model) of `azure/eu/gpt-4o`.

    The provider is `said`, if given, and then all of the name is the model's; else the known prefix. Without a known
    prefix it is `named` (the provider of the entry's address), else the prefix, else the provider whose names begin
    like this. A name that is none of these has no provider, since prompts and key would go to a company that nobody
    named.
    """
    prefix, separator, rest = model.partition("/")
    if said is not None:
        provider, name = said, rest if prefix == said else model
    elif separator and (prefix in PROVIDERS or named is None):
        provider, name = prefix, rest
    else:
        known = (family for family, begins in _FAMILIES if re.match(begins, model))
        provider, name = named or next(known, "custom_openai"), model
    for route in _ROUTES.get(provider, ()):
        name = name.removeprefix(route)
    return provider, _BEFORE_ARN.sub("", name) if provider == "bedrock" else name


def supported_apis() -> frozenset[str]:
    """Names of APIs other than OpenAI's that a deployment can declare."""
    field = DeploymentDoc.model_fields.get("api")
    found: list[object] = list(get_args(field.annotation)) if field is not None else []
    return frozenset(name for name in found if isinstance(name, str)) - {"openai"}


def is_private(host: str) -> bool:
    """Whether `host` is this machine, a private network, or a name that only an internal network resolves."""
    try:
        return ip_address(host).is_private
    except ValueError:
        pass
    return host in LOCAL or host.endswith((".local", ".internal", ".svc", ".lan")) or "." not in host


def host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def cut_path(url: str, *paths: str) -> str:
    """The address up to the first of these paths; hosts and longer path segments that begin like one of them stay."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + re.split(f"(?:{'|'.join(paths)})(?=/|$)", rest, maxsplit=1)[0]


_PROFILE = re.compile(r"(?:^|/)(global|apac|eu|us)\.")


def processing_region(api: str | None, model: str, region: str | None) -> str | None:
    """The region where a call sent to `region` is processed. Bedrock's inference profiles use any of their regions with
    capacity: from Tokyo to Sydney or Mumbai, from Canada to the United States
    (docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html)."""
    found = _PROFILE.search(model) if api == "bedrock" else None
    if found is None:
        return region
    law = jurisdiction_of(found[1])
    return region if region is not None and law == jurisdiction_of(region) != UNKNOWN else found[1]


_REGIONS = (
    (("eu-west-2", "europe-west2", "eu-gb", "uk"), "GB"),
    (("eu-central-2", "europe-west6", "eu-zurich", "switzerland"), "CH"),
    (("norway",), "NO"),
    (("eu", "westeurope", "northeurope", "sweden", "france", "germany", "poland", "italy", "spain"), "EU"),
    (("us", "eastus", "westus", "centralus", "northcentralus", "southcentralus", "westcentralus"), "US"),
    (("ca-", "canada", "northamerica-northeast"), "CA"),
    (("japan", "ap-northeast-1", "ap-northeast-3", "asia-northeast1", "asia-northeast2"), "JP"),
    (("korea", "ap-northeast-2", "asia-northeast3"), "KR"),
    (("australia", "ap-southeast-2"), "AU"),
    (("india", "ap-south-1", "asia-south1"), "IN"), (("brazil", "sa-east"), "BR"),
)  # fmt: skip
"""Beginnings of region names, the first match counts: London and Zurich have names as if they were in the EU."""


def jurisdiction_of(region: str) -> str:
    """Jurisdiction of a cloud region or zone by its name: `eu-west-1`, `swedencentral`, `us`. `UNKNOWN` if it is not
    clear."""
    name = region.strip().lower()
    for beginnings, jurisdiction in _REGIONS:
        if any(_has_prefix(name, each) for each in beginnings):
            return jurisdiction
    return UNKNOWN


def _has_prefix(name: str, beginning: str) -> bool:
    """Whether `name` begins with `beginning`; a number at its end must be complete: `europe-west12` is not
    `europe-west1`."""
    rest = name.removeprefix(beginning)
    return len(rest) < len(name) and not (beginning[-1].isdigit() and rest[:1].isdigit())
