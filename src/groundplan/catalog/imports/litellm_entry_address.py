"""Reads the address of one entry of LiteLLM's list: URL and region, with findings for what is changed or lacks.

`litellm_addresses` knows the addresses of providers.
"""

from __future__ import annotations

import re

from groundplan.catalog.imports import litellm_addresses as addresses
from groundplan.catalog.imports.litellm_findings import REPLACE_SECRET
from groundplan.catalog.imports.litellm_variables import Variables
from groundplan.catalog.imports.naming import one_line
from groundplan.catalog.imports.node import Node
from groundplan.catalog.imports.providers import host_of
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NEEDED, SECRET, Finding

REGION_KEYS = ("region_name", "aws_region_name", "vertex_location", "vertex_ai_location", "watsonx_region_name")
"""Keys of `litellm_params` that may hold a region; the first one counts."""
_OWN_URL = {"anthropic": "https://api.anthropic.com/v1", "cohere": "https://api.cohere.com/v2"}
"""docs.anthropic.com/en/api, docs.cohere.com/reference/rerank"""


class AddressReader:
    """Reads addresses; `findings` collects what is to be said of them."""

    def __init__(self, variables: Variables, findings: list[Finding]) -> None:
        self._variables = variables
        self._findings = findings

    def provider_name(self, params: Node) -> str | None:
        """The provider whose public address the entry has, if any."""
        node = address_node(params)
        url = self._variables.resolve(node) if node is not None else None
        return addresses.provider_by_url(url) if url else None

    def url(
        self, params: Node, place: addresses.Place, kind: str, missing: list[str], model: Node
    ) -> tuple[str | None, bool]:
        """(URL, whether it is an address of the user's choice). What a URL lacks is added to `missing`. `model`: the
        value to which a finding refers where the entry has no address."""
        node = address_node(params)
        provider, name = place.provider, place.name
        own = _OWN_URL.get("cohere" if kind == "rerank" and name.startswith("cohere") else provider.api or "")
        own = None if provider.own_host and provider.api else own
        said = next(filter(self._variables.is_mentioned, addresses.address_variables(name)), None)
        if node is None and said is None:
            url = self._with_project(params, place, own or provider.url or addresses.region_url(place))
            if url is None:
                missing.append("an address")
                self._report(NEEDED, "api_base", *self._missing_address_parts(params, place), model)
            return url, provider.own_host
        variable = node.variable if node is not None else said
        text = addresses.without_version(
            (self._variables.resolve(node) if node is not None else self._variables.value(said or "")) or ""
        )
        node = node or model
        if not addresses.is_url(text):
            missing.append("an address")
            hint = f"Say --set {variable}=https://HOST." if variable else "Write https://HOST/PATH alone."
            if addresses.has_credentials(text):
                here, hint = "credentials stand in the address: not copied", f"{REPLACE_SECRET} {hint}"
                self._report(SECRET, "api_base", here, hint, node)
            else:
                self._report(NEEDED, "api_base", "the address is not in the file, or not one alone", hint, node)
            return None, True
        if addresses.uses_own_api(provider, kind):
            if not addresses.is_own_host(provider, text):
                missing.append("an address")
                here = "an API of its provider's own is asked there, which nothing here speaks"
                self._report(NEEDED, "api_base", here, "Write url: of its OpenAI-compatible API.", node)
                return None, True
            text = own or provider.url or text
        url = self._with_project(params, place, addresses.with_api_path(text.rstrip("/"), provider))
        if url is None:
            missing.append("an address")
            self._report(NEEDED, "vertex_project", "the address does not name project and location",
                         "Write url: https://HOST/v1/projects/PROJECT/locations/LOCATION.", node)  # fmt: skip
            return None, True
        same = host_of(url) == host_of(provider.url or own or "")
        if url != text.rstrip("/"):
            self._report(CHANGED, "api_base", "url: with the path of its API", "Check it once.", node)
        else:
            self._report(CARRIED, "api_base", "url: of the deployment", "", node)
        return url, not same

    def _missing_address_parts(self, params: Node, place: addresses.Place) -> tuple[str, str]:
        """(equivalent here, what to do) for a provider whose address is not known."""
        name, lacking = one_line(place.name), []
        for part in addresses.PARTS.get(place.provider.api or "", ()):
            if self.part(params, part) is None:
                node = _first_node(params, part.keys)
                lacking.append(f"--set {(node.variable if node else None) or part.variables[0]}={part.sample}")
        if not lacking:
            todo = (
                f"Say --set {addresses.address_variables(place.name)[0]}=https://HOST, or write url: of the deployment."
            )
            return f"{name} has no address of its own that is known", todo
        return f"of the address at {name} a part is not in the file", f"Say {' '.join(lacking)}."

    def part(self, params: Node, part: addresses.AddressPart) -> str | None:
        """A part of an address: from the file, else from its environment variables."""
        node = _first_node(params, part.keys)
        if node is not None:
            return self._variables.resolve(node)
        return next((value for name in part.variables if (value := self._variables.value(name))), None)

    def _with_project(self, params: Node, place: addresses.Place, url: str | None) -> str | None:
        """The address with project and location for Vertex AI; None if they are unknown."""
        if url is None or place.provider.api != "vertexai" or "/projects/" in url:
            return url
        project = self.part(params, addresses.PROJECT)
        if project is None or place.region is None or not re.fullmatch(r"[a-z0-9:.-]{2,63}", project):
            return None
        return f"{url.removesuffix('/v1')}/v1/projects/{project}/locations/{place.region}"

    def region(self, params: Node) -> str | None:
        """The region that the entry says, if any."""
        for key in REGION_KEYS:
            node = params.get(key)
            text = self._variables.resolve(node) if node else None
            if node is not None and text:
                self._report(CARRIED, key, "the site of the deployment, by whose law it is worked on", "", node)
                return text
        return None

    def _report(self, state: str, what: str, here: str, todo: str, node: Node) -> None:
        self._findings.append(Finding(state, what, here, todo, node.where))


def _first_node(params: Node, keys: tuple[str, ...]) -> Node | None:
    return next((node for key in keys if (node := params.get(key)) is not None), None)


def address_node(params: Node) -> Node | None:
    """The value that says the address of an entry, if any."""
    return params.get("api_base") or params.get("base_url") or params.get("aws_bedrock_runtime_endpoint")
