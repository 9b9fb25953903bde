"""The register: models, prompts, integrations, sources, providers, workloads, with what is known of each."""
