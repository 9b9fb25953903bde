"""What each LiteLLM setting is here: its equal, or why there is none and what to do. Facts only, no reading.

Settings that change the workspace itself (models, prices, fallbacks, retries, budgets) are in `litellm`.
"""

from __future__ import annotations

from typing import NamedTuple

from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NO_EQUAL


class Rule(NamedTuple):
    """What is said of one setting."""

    state: str
    here: str
    todo: str = ""


_ALWAYS = "always so here"
_NONE = "nothing of this kind is needed here"
_DATABASE = "lives in LiteLLM's database, not in this file"
_REDIS = Rule(CHANGED, "gateways share state through PostgreSQL and leases; there is no Redis", "Leave it out.")
_CALLBACK = Rule(
    NO_EQUAL, "calls are not sent to other services",
    "Read calls from /api/calls, /metrics or the audit log, which hold every one of them.",
)  # fmt: skip
_DEBUG = Rule(CHANGED, "logs are structured and hold no content; their place is HOME/logs")
_KEYS = Rule(CHANGED, f"virtual keys: {_DATABASE}", "Make one for each caller: groundplan keys create --workload NAME.")
_SIGN_IN = Rule(
    NO_EQUAL, "people sign in with passkeys or OpenID Connect", "GROUNDPLAN_OIDC_ISSUER; see docs/identity.md"
)
_MASTER = "`up` makes the operator's token itself, HOME/operator.token"
_ALERT = Rule(NO_EQUAL, "what needs somebody is in the inbox of the console", "Alert on /metrics.")
_PASSED = Rule(NO_EQUAL, "a call is forwarded as its caller sent it; nothing is added", "Let the callers send it.")
_MCP = Rule(
    CHANGED, "an MCP server is declared as kind: tool, and its tools are offered at /mcp",
    "Declare each: url, key: env:NAME, owner, workloads; see docs/mcp.md.",
)  # fmt: skip
_GUARDRAIL = Rule(
    CHANGED, "checks are declared at each workload that needs them; nothing is checked by having been imported",
    "guardrails: {input: {personal_data: mask, secrets: block}} at workloads; see docs/guardrails.md.",
)  # fmt: skip
_TEAMS = Rule(NO_EQUAL, f"teams: {_DATABASE}", "Declare kind: team, and team: at workloads.")
_PER_PERSON = Rule(CHANGED, "a limit for each person", "kind: limit, covers: user, cost: 5 USD/day")
_END_USERS = Rule(
    NO_EQUAL, "a budget is of the company, a team, workload or key", "kind: limit, covers: user, for people of keys"
)
_HEALTH = Rule(CHANGED, "health is learned from calls; no probes are paid for", "")
_METRICS = Rule(CHANGED, "each gateway has /metrics, with names and labels of its own", "See docs/observability.md.")
_ON_BEHALF_OF = Rule(
    CHANGED, "the person of a call is that of its key, or named in groundplan-on-behalf-of by a key with that right",
    "groundplan keys create --on-behalf-of",
)  # fmt: skip
_OVERLOAD = Rule(CHANGED, "in a full worker the less important calls are refused first", "priority: of workloads")
_SIZES = Rule(CHANGED, "the gateway bounds bodies itself", "")
_RIGHTS = Rule(CHANGED, "what somebody may do follows from their duties", "See docs/identity.md.")
_ADDRESSES = Rule(CARRIED, _ALWAYS + ": no address that a caller names is asked, only those of deployments")
_COSTS_BY = Rule(
    NO_EQUAL, "costs are known by workload, team, person, key and its tags", "groundplan-feature, keys create --tag"
)
_RULE_CODE = Rule(NO_EQUAL, "code of your own is not run in a gateway", "Declare guardrails: at workloads.")
_RETENTION = Rule(NO_EQUAL, "the ledger is kept", "")
_SOURCES = Rule(NO_EQUAL, "data for answers is declared as sources", "Declare kind: source.")
_PROMPTS = Rule(NO_EQUAL, "prompts are declared as kind: prompt with name and version", "Write them there.")
_PASS_THROUGH = Rule(NO_EQUAL, "only calls of declared workloads are forwarded", "Call them directly.")
_RUN_TOOLS = Rule(NO_EQUAL, "no tool is run during a call", "Declare kind: tool: callers run it by /mcp.")
_AGENTS = Rule(NO_EQUAL, "agents are applications that call a workload", "Declare kind: workload for each.")
_SEPARATE = Rule(NO_EQUAL, "this kind of endpoint has no settings of its own", "Declare a deployment for each model.")
_CLOUD = Rule(NO_EQUAL, "keys are bearer tokens by reference", "Put a gateway of the cloud's own in front, or its key.")
MACHINE = "without key: a deployment of Bedrock or Vertex AI is asked with the credentials of the machine"
GOOGLE = "Set GOOGLE_APPLICATION_CREDENTIALS for the process that serves."

SECTIONS: dict[str, Rule] = {
    "guardrails": _GUARDRAIL,
    "mcp_servers": _MCP,
    "mcp_tools": _MCP,
    "mcp_aliases": _MCP,
    "policies": _GUARDRAIL,
    "policy_attachments": _GUARDRAIL,
    "finetune_settings": _SEPARATE,
    "files_settings": _SEPARATE,
    "vector_store_registry": _SOURCES,
    "sandbox_tools": _RUN_TOOLS,
    "agents": _AGENTS,
    "agent_list": _AGENTS,
    "assistant_settings": _SEPARATE,
    "search_tools": Rule(NO_EQUAL, "what is searched is declared as sources", "Declare kind: source."),
    "prompts": _PROMPTS,
    "callback_settings": _CALLBACK,
    "credential_list": Rule(CHANGED, "key: and url: of each deployment that names one", ""),
    "pass_through_endpoints": _PASS_THROUGH,
    "litellm_params": _PASSED,
}
"""Whole sections; each entry of a list is told."""

LITELLM: dict[str, Rule] = {
    "guardrails": _GUARDRAIL,
    "drop_params": Rule(
        CHANGED, "fields that an upstream does not know are never dropped in silence: it refuses them by name",
        "Take them out at the caller.",
    ),
    "modify_params": _PASSED,
    "cache": Rule(
        CHANGED, "answers are given again where a workload says so", "cache: {answers: exact, ttl: 1h} at workloads",
    ),
    "success_callback": _CALLBACK,
    "failure_callback": _CALLBACK,
    "service_callbacks": _CALLBACK,
    "audit_log_callbacks": Rule(CARRIED, "every call and change is in the audit log", ""),
    "turn_off_message_logging": Rule(CARRIED, _ALWAYS + ": content of calls is not kept"),
    "redact_user_api_key_info": Rule(CARRIED, _ALWAYS + ": keys are never logged"),
    "redact_messages_in_exceptions": Rule(CARRIED, _ALWAYS),
    "set_verbose": _DEBUG,
    "json_logs": _DEBUG,
    "telemetry": Rule(CARRIED, "nothing is sent home, ever"),
    "force_ipv4": Rule(NO_EQUAL, "addresses are resolved by the system", "Order them in /etc/gai.conf."),
    "context_window_fallbacks": Rule(
        CHANGED, "a prompt that is too long for one goes to the next of its fallbacks whose context is larger",
        "Name the larger model in fallbacks: it takes over for other failures as well; write context: of both.",
    ),
    "content_policy_fallbacks": Rule(
        NO_EQUAL, "a refusal by a provider's content filter is an answer, not a failure",
        "Name the model in fallbacks: if it may take over for failures.",
    ),
    "default_team_settings": _TEAMS,
    "default_team_params": _TEAMS,
    "default_internal_user_params": Rule(NO_EQUAL, f"users: {_DATABASE}", "Declare kind: person and kind: grant."),
    "upperbound_key_generate_params": _KEYS,
    "default_key_generate_params": _KEYS,
    "key_generation_settings": _KEYS,
    "max_internal_user_budget": _PER_PERSON,
    "default_max_internal_user_budget": _PER_PERSON,
    "max_user_budget": _PER_PERSON,
    "internal_user_budget_duration": Rule(NO_EQUAL, "see max_internal_user_budget", ""),
    "max_end_user_budget": _END_USERS,
    "max_end_user_budget_id": _END_USERS,
    "default_end_user_params": _END_USERS,
    "validate_end_user_id_in_db": _END_USERS,
    "default_soft_budget": Rule(CHANGED, "a budget that only warns has hard: false", "kind: budget, hard: false"),
    "budget_reset_time": Rule(CHANGED, "periods of a budget are those of the calendar", "timezone: of the budget"),
    "timezone": Rule(CHANGED, "periods of a budget are those of the calendar", "timezone: of the budget"),
    "budget_exceeded_status_code": Rule(NO_EQUAL, "a used-up budget is answered with 429", ""),
    "block_requests_for_models_without_pricing": Rule(CARRIED, _ALWAYS + ": nothing is called without a price"),
    "token_rate_limit_type": Rule(CHANGED, "a limit counts tokens of question and answer together", ""),
    "priority_reservation": _OVERLOAD,
    "priority_reservation_settings": _OVERLOAD,
    "store_audit_logs": Rule(CARRIED, "every call and change is in the audit log", ""),
    "callback_settings": _CALLBACK,
    "input_callback": _CALLBACK,
    "generic_logger_headers": _CALLBACK,
    "standard_logging_payload_excluded_fields": _CALLBACK,
    "global_disable_no_log_param": Rule(CARRIED, _ALWAYS + ": no caller can switch records off"),
    "log_raw_request_response": _DEBUG,
    "log_client_error_tracebacks": _DEBUG,
    "request_correlation_in_logs": _DEBUG,
    "suppress_debug_info": _DEBUG,
    "extra_spend_tag_headers": _COSTS_BY,
    "add_user_information_to_llm_headers": Rule(NO_EQUAL, "nothing is added to a call about who makes it", ""),
    "overwrite_user_with_key_hash": Rule(NO_EQUAL, "nothing is added to a call about who makes it", ""),
    "pre_call_rules": _RULE_CODE,
    "post_call_rules": _RULE_CODE,
    "vector_store_registry": _SOURCES,
    "vector_store_index_registry": _SOURCES,
    "websearch_interception_params": _RUN_TOOLS,
    "code_interpreter_interception_params": _RUN_TOOLS,
    "global_prompt_directory": _PROMPTS,
    "global_bitbucket_config": _PROMPTS,
    "global_gitlab_config": _PROMPTS,
    "user_url_validation": _ADDRESSES,
    "user_url_allowed_hosts": _ADDRESSES,
    "provider_url_destination_allowed_hosts": _ADDRESSES,
    "forward_traceparent_to_llm_provider": Rule(CARRIED, _ALWAYS + ": a trace goes on at the upstream"),
    "aiohttp_trust_env": Rule(CHANGED, "proxies are declared, not read from the environment", "proxy: of the company"),
    "ssl_certificate": Rule(CHANGED, "certificates are declared for each upstream", "tls: {cert: file:/PATH}"),
    "http2": Rule(CHANGED, "HTTP/2 is declared for each upstream", "http: 2 at deployments"),
    "model_alias_map": Rule(CHANGED, "other names of a model are aliases: of its workload", "Write them there."),
    "require_auth_for_metrics_endpoint": Rule(CARRIED, "other machines need a token for /metrics", ""),
    "enable_end_user_cost_tracking_prometheus_only": _METRICS,
    "key_alias_pattern": _KEYS,
    "enable_redis_auth_cache": _REDIS,
    "force_redis_hash_tag_grouping": _REDIS,
    "tag_budget_config": Rule(NO_EQUAL, "budgets are for company, team, workload or key", "One workload for each tag."),
    "custom_provider_map": Rule(
        NO_EQUAL, "code of your own is not run in a gateway", "Serve it at an OpenAI-compatible address, as url:.",
    ),
    "max_ui_session_budget": Rule(NO_EQUAL, "the console makes no calls", ""),
    "mcp_aliases": _MCP,
    "enable_json_schema_validation": Rule(CHANGED, "the upstream answers for structured outputs", ""),
    "ssl_verify": Rule(CHANGED, "certificates are always verified", "tls: {ca: file:/PATH} at deployments"),
    "cost_discount_config": Rule(NO_EQUAL, "a price is what you pay", "Write the discounted price: at deployments."),
    "cost_margin_config": Rule(NO_EQUAL, "a price is what you pay", "Margins belong to your own invoices."),
}  # fmt: skip

ROUTER: dict[str, Rule] = {
    "routing_strategy_args": Rule(NO_EQUAL, "balancing has no further settings", "reliability: {balance: ...}"),
    "enable_pre_call_checks": Rule(CARRIED, _ALWAYS + ": a call is checked against the deployment before it is sent"),
    "allowed_fails": Rule(CHANGED, "a deployment that fails is left alone for a while and then tried again", ""),
    "allowed_fails_policy": Rule(CHANGED, "a deployment that fails is left alone for a while and then tried again"),
    "cooldown_time": Rule(CHANGED, "how long is learned from its failures", ""),
    "enable_health_check_routing": _HEALTH,
    "background_health_check_model_groups": _HEALTH,
    "default_priority": _OVERLOAD,
    "model_group_affinity_config": Rule(CHANGED, "a prompt's prefix can stay at one deployment", "balance: prefix"),
    "disable_cooldowns": Rule(NO_EQUAL, "a deployment that fails is always left alone for a while", ""),
    "retry_policy": Rule(
        NO_EQUAL, "what was certainly not answered is tried again, whatever the error", "limits.attempts at workloads",
    ),
    "retry_after": Rule(CHANGED, "a provider's own retry-after is honoured", "reliability: {retries: {backoff: 1s}}"),
    "model_group_retry_policy": Rule(NO_EQUAL, "one number of attempts for each workload", "limits.attempts"),
    "enable_tag_filtering": Rule(NO_EQUAL, "a key leads to one workload and its deployments", "One workload a tag."),
    "tag_filtering_match_any": Rule(NO_EQUAL, "a key leads to one workload and its deployments", "One workload a tag."),
    "provider_budget_config": Rule(
        NO_EQUAL, "budgets are for company, team, workload or key, not for providers", "Budget the workloads.",
    ),
    "default_litellm_params": _PASSED,
    "default_max_parallel_requests": Rule(NO_EQUAL, "there is no default for all deployments", "Write kind: limit."),
    "max_fallbacks": Rule(CHANGED, "attempts are bounded: limits.attempts of a workload", ""),
    "optional_pre_call_checks": Rule(CHANGED, "a prompt's prefix can stay at one deployment", "balance: prefix"),
    "set_verbose": _DEBUG,
    "debug_level": _DEBUG,
    "client_ttl": Rule(CHANGED, "connections are kept while they are good"),
    "cache_responses": Rule(
        CHANGED, "answers are given again where a workload says so", "cache: {answers: exact, ttl: 1h} at workloads",
    ),
    "cache_kwargs": _REDIS,
}  # fmt: skip

GENERAL: dict[str, Rule] = {
    "master_key": Rule(CHANGED, _MASTER, ""),
    "database_url": Rule(CHANGED, "PostgreSQL comes with it, or GROUNDPLAN_DATABASE_URL names another", ""),
    "store_model_in_db": Rule(
        NO_EQUAL, f"models that were added in its UI: {_DATABASE}", "List them with its /model/info and declare them.",
    ),
    "alerting": _ALERT,
    "alerting_threshold": _ALERT,
    "alerting_args": _ALERT,
    "alert_types": _ALERT,
    "alert_to_webhook_url": _ALERT,
    "spend_report_frequency": Rule(CHANGED, "the Cost page and `groundplan cost` always show it"),
    "enable_jwt_auth": _SIGN_IN,
    "litellm_jwtauth": _SIGN_IN,
    "custom_auth": Rule(NO_EQUAL, "callers show an API key of a workload", "groundplan keys create"),
    "custom_sso": _SIGN_IN,
    "enable_oauth2_auth": _SIGN_IN,
    "enable_oauth2_proxy_auth": _SIGN_IN,
    "oauth2_config_mappings": _SIGN_IN,
    "ui_access_mode": Rule(CHANGED, "what somebody sees in the console follows from their duties"),
    "custom_key_generate": _KEYS,
    "key_management_system": Rule(NO_EQUAL, "keys are references: env:NAME or file:/path", "Mount them as files."),
    "key_management_settings": Rule(NO_EQUAL, "keys are references: env:NAME or file:/path", "Mount them as files."),
    "use_azure_key_vault": Rule(NO_EQUAL, "keys are references: env:NAME or file:/path", "Mount them as files."),
    "use_google_kms": Rule(NO_EQUAL, "keys are references: env:NAME or file:/path", "Mount them as files."),
    "allow_requests_on_db_unavailable": Rule(
        CHANGED, "without PostgreSQL a gateway serves on the slices it holds, for the grace of each workload",
    ),
    "disable_spend_logs": Rule(NO_EQUAL, "every call is metered; it cannot be switched off", ""),
    "disable_spend_updates": Rule(NO_EQUAL, "every call is metered; it cannot be switched off", ""),
    "store_prompts_in_spend_logs": Rule(CHANGED, "content is kept where a workload says so", "keep: at workloads"),
    "enforce_user_param": Rule(CHANGED, "a call has the person of its key; the field user is never trusted", ""),
    "reject_clientside_metadata_tags": Rule(CARRIED, _ALWAYS),
    "max_parallel_requests": Rule(NO_EQUAL, "there is no default for all deployments", "Write kind: limit."),
    "max_request_size_mb": _SIZES,
    "max_batch_file_size_mb": _SIZES,
    "max_batch_file_records": _SIZES,
    "max_response_size_mb": Rule(CHANGED, "the gateway bounds answers itself", ""),
    "background_health_checks": _HEALTH,
    "health_check_interval": _HEALTH,
    "health_check_details": _HEALTH,
    "completion_model": Rule(CHANGED, "a key leads to one workload; its callers may write model: auto", ""),
    "embedding_model": Rule(CHANGED, "a key leads to one workload; its callers may write model: auto", ""),
    "image_generation_model": Rule(CHANGED, "a key leads to one workload; its callers may write model: auto", ""),
    "moderation_model": Rule(CHANGED, "a key leads to one workload; its callers may write model: auto", ""),
    "infer_model_from_keys": Rule(NO_EQUAL, "what may be called is declared", ""),
    "allowed_ips": Rule(CHANGED, "networks are allowed for each key", "Say them when the key is made."),
    "trusted_proxy_ranges": Rule(CHANGED, "trusted_proxies: of the company", "Write them there."),
    "user_header_name": _ON_BEHALF_OF,
    "user_header_mappings": _ON_BEHALF_OF,
    "fail_closed_budget_enforcement": Rule(CARRIED, _ALWAYS + ": without room in a budget nothing is sent"),
    "fail_closed_rate_limit_enforcement": Rule(CARRIED, _ALWAYS + ": without room in a limit nothing is sent"),
    "cancel_on_disconnect": Rule(CARRIED, _ALWAYS + ": a caller that leaves ends its call at the upstream"),
    "always_include_stream_usage": Rule(CHANGED, "each stream is metered; its caller gets usage where it asks for it"),
    "max_in_flight_requests_per_worker": _OVERLOAD,
    "max_queued_requests_per_worker": _OVERLOAD,
    "admission_queue_timeout_seconds": _OVERLOAD,
    "coordination_redis": _REDIS,
    "use_redis_transaction_buffer": _REDIS,
    "use_shared_health_check": _HEALTH,
    "enable_health_check_routing": _HEALTH,
    "background_health_check_model_groups": _HEALTH,
    "model_list_healthy_only": _HEALTH,
    "spend_logs_metadata_fields": _COSTS_BY,
    "enforced_params": Rule(NO_EQUAL, "no field of a call is required", ""),
    "custom_key_update": _KEYS,
    "custom_key_policy": _KEYS,
    "custom_team_metadata_validate": _TEAMS,
    "allow_user_auth": _SIGN_IN,
    "enforce_rbac": _RIGHTS,
    "role_permissions": _RIGHTS,
    "user_mcp_management_mode": _RIGHTS,
    "forward_llm_provider_auth_headers": Rule(NO_EQUAL, "upstream keys are declared, never sent by callers", ""),
    "otel": Rule(CARRIED, "traces of calls are sent by OTLP", ""),
    "use_x_forwarded_for": Rule(CHANGED, "believed from trusted_proxies: of the company alone", "Write them."),
    "allowed_routes": Rule(CHANGED, "only calls to models, and only with a key, are answered by the gateway"),
    "public_routes": Rule(CHANGED, "only calls to models, and only with a key, are answered by the gateway"),
    "admin_only_routes": Rule(CHANGED, "the control API is apart, on its own port"),
    "pass_through_endpoints": _PASS_THROUGH,
    "forward_client_headers_to_llm_api": Rule(NO_EQUAL, "headers of callers are not forwarded", ""),
    "forward_openai_org_id": Rule(NO_EQUAL, "headers of callers are not forwarded", ""),
    "allow_client_side_credentials": Rule(NO_EQUAL, "upstream keys are declared, never sent by callers", ""),
    "litellm_license": Rule(CHANGED, _NONE),
    "litellm_key_header_name": Rule(NO_EQUAL, "keys are sent as Authorization: Bearer", "Change it at the callers."),
    "default_team_disabled": _TEAMS,
    "service_account_settings": _KEYS,
}  # fmt: skip

_ROUTED = Rule(CHANGED, "model `auto` chooses among deployments of a workload that are allowed to", "routing: of it")
_APART = Rule(NO_EQUAL, "a limit counts tokens of question and answer together", "Write kind: limit, tokens: N/minute.")
_SENT_IN = "it is taken where the deployment says so, and what it counts at most, as that is reserved"
_BOUNDLESS = Rule(NO_EQUAL, "what has no bound of cost is refused at every upstream", "See docs/refused.md.")
_PER_KEY = Rule(CHANGED, "a limit may cover each key", "Write kind: limit, covers: key.")
ENTRY: dict[str, Rule] = {
    "tags": Rule(NO_EQUAL, "a key leads to one workload and its deployments", "Declare one workload for each tag."),
    "tag_regex": Rule(NO_EQUAL, "a key leads to one workload and its deployments", "One workload for each tag."),
    "tiered_pricing": Rule(NO_EQUAL, "a price has one tier for long prompts", "Write price: with long:, the dearest."),
    "access_groups": Rule(NO_EQUAL, "who may call is who has a key, or a grant", "Declare kind: grant."),
    "access_via_team_ids": _TEAMS,
    "blocked": Rule(
        CHANGED, "what is blocked there stays a comment", "Take it out of the comment once it may be called.",
    ),
    "tier": Rule(NO_EQUAL, "a key leads to one workload and its deployments", "One workload for each tier."),
    "organization": Rule(NO_EQUAL, "no headers of your own are sent upstream", "Use a key of that organisation."),
    "extra_headers": Rule(NO_EQUAL, "no headers of your own are sent upstream", ""),
    "headers": Rule(NO_EQUAL, "no headers of your own are sent upstream", ""),
    "default_headers": Rule(NO_EQUAL, "no headers of your own are sent upstream", ""),
    "api_version": Rule(CHANGED, "the provider's v1 API takes no version", ""),
    "drop_params": LITELLM["drop_params"],
    "additional_drop_params": LITELLM["drop_params"],
    "allowed_openai_params": LITELLM["drop_params"],
    "cooldown_time": ROUTER["cooldown_time"],
    "configurable_clientside_auth_params": GENERAL["allow_client_side_credentials"],
    "use_in_pass_through": GENERAL["pass_through_endpoints"],
    "itpm": _APART,
    "otpm": _APART,
    "default_api_key_rpm_limit": _PER_KEY,
    "default_api_key_tpm_limit": _PER_KEY,
    "ssl_verify": LITELLM["ssl_verify"],
    "max_file_size_mb": Rule(NO_EQUAL, "what may be sent in has bounds of its own", "audio: of the deployment"),
    "merge_reasoning_content_in_choices": Rule(NO_EQUAL, "an answer is told as its upstream gave it", ""),
    "litellm_credential_name": Rule(NO_EQUAL, "a key is a reference at each deployment", "Write key: env:NAME."),
    "team_id": _TEAMS,
    "team_public_model_name": _TEAMS,
    "litellm_provider": Rule(CARRIED, "the first part of model: of the deployment"),
    "id": Rule(CHANGED, "a deployment is known by its name; fallbacks to this one name it", ""),
    "model_id": Rule(CARRIED, "upstream_model: of a deployment of Bedrock"),
    "metadata": Rule(NO_EQUAL, "what is known of a deployment has fields of its own", "title: of the deployment"),
    "description": Rule(NO_EQUAL, "what is known of a deployment has fields of its own", "title: of the deployment"),
    "vertex_project": Rule(CARRIED, "a part of url: of the deployment"),
    "base_model": Rule(CARRIED, "the model: of the deployment, by which it gets its price"),
    "mode": Rule(CARRIED, "type: of the deployment"),
    "health_check_timeout": _HEALTH,
    "disable_background_health_check": _HEALTH,
    "mock_timeout": Rule(NO_EQUAL, "a deployment is real", "Use url: local:scripted-SITE for a scripted one."),
    "mock_response": Rule(NO_EQUAL, "a deployment is real", "Use url: local:scripted-SITE for a scripted one."),
    "supports_system_message": _PASSED,
    "supports_vision": Rule(CHANGED, _SENT_IN, "accepts: [image] and image_tokens: N of the deployment"),
    "supports_images": Rule(CHANGED, _SENT_IN, "accepts: [image] and image_tokens: N of the deployment"),
    "supports_video_input": Rule(NO_EQUAL, "what a video counts as has no bound: it is refused", ""),
    "supports_pdf_input": Rule(CHANGED, _SENT_IN, "accepts: [file] and context: N of the deployment"),
    "supports_audio_input": Rule(CHANGED, _SENT_IN, "accepts: [audio] and audio_tokens: N of the deployment"),
    "supports_audio_output": _BOUNDLESS,
    "supports_web_search": _BOUNDLESS,
    "supports_url_context": _BOUNDLESS,
    "supports_computer_use": _BOUNDLESS,
    "cache_control_injection_points": _PASSED,
    "guardrails": _GUARDRAIL,
}  # fmt: skip
"""Keys of `litellm_params` and `model_info`."""

PREFIXES: tuple[tuple[str, Rule], ...] = (
    ("redis_", _REDIS),
    ("cache_params", _REDIS),
    ("langfuse_", _CALLBACK),
    ("s3_", _CALLBACK),
    ("aws_", Rule(CHANGED, MACHINE, "Give the process that serves a role, or AWS_ACCESS_KEY_ID and its secret.")),
    ("vertex_", Rule(CHANGED, MACHINE, GOOGLE)),
    ("azure_", _CLOUD),
    ("tenant_id", _CLOUD),
    ("client_id", _CLOUD),
    ("client_secret", _CLOUD),
    ("database_", Rule(CHANGED, "connections to PostgreSQL are pooled", "")),
    ("proxy_b", Rule(CHANGED, "spend is written with each call, not in turns", "")),
    ("disable_", Rule(NO_EQUAL, "nothing of this kind can be switched off", "")),
    ("supports_", Rule(CARRIED, "a call is forwarded as it is; the upstream knows what it can", "")),
    ("health_check_", _HEALTH),
    ("auto_router_", _ROUTED),
    ("complexity_router_", _ROUTED),
    ("adaptive_router_", _ROUTED),
    ("quality_router_", _ROUTED),
    ("default_redis_", _REDIS),
    ("prometheus_", _METRICS),
    ("custom_prometheus_", _METRICS),
    ("datadog_", _CALLBACK),
    ("langsmith_", _CALLBACK),
    ("team_metadata_", _TEAMS),
    ("password_policy_", _SIGN_IN),
    ("failed_login_", _SIGN_IN),
    ("max_failed_login_", _SIGN_IN),
    ("maximum_", _RETENTION),
    ("pass_through_", _PASS_THROUGH),
    ("mcp_", _MCP),
    ("ui_", Rule(CHANGED, "the console has no such setting", "")),
)
"""Tried in this order where no name fits."""

SECRETS = (
    "key", "secret", "password", "token", "credential", "database_url", "license", "webhook", "auth_value",
    "authorization", "connection_string", "dsn",
)  # fmt: skip
"""Words in the name of a setting whose value may be a secret."""
_NOT_SECRET = (
    "max_", "_tokens", "_per_token", "token_cost", "_header_name", "credential_name", "key_management", "cache_key",
    "public_key", "custom_key", "key_alias", "keywords", "token_rate", "token_exchange_", "token_ur", "token_file",
    "valkey_host", "valkey_port", "valkey_text", "valkey_embedding",
)  # fmt: skip

UNKNOWN = Rule(NO_EQUAL, "this import does not know it", "See docs/workspace.md for what can be declared.")
BESIDE = Rule(NO_EQUAL, "the proxy does not read it in model_info", "If it is meant, write it in litellm_params.")
UNREAD_FALLBACKS = Rule(
    NO_EQUAL, "the proxy does not read it where router_settings has fallbacks", "If they are meant, write them there."
)
PROVIDER_FIELD = Rule(NO_EQUAL, "a call is forwarded as its caller sent it; nothing is added", "Callers send it.")


def unread_setting_rule(read: tuple[str, ...]) -> Rule:
    """Of a setting that the proxy does not heed where it stands, only in the sections `read`."""
    return Rule(NO_EQUAL, "the proxy does not read it in this section", f"If it is meant, write it in {read[0]}.")


def find_rule(table: dict[str, Rule], key: str) -> Rule | None:
    """What is said of `key`, None where neither `table` nor a beginning knows it."""
    if key in table:
        return table[key]
    return next((found for beginning, found in PREFIXES if key.startswith(beginning)), None)


def may_be_secret(key: str) -> bool:
    """Whether a literal text under this key is treated as a secret."""
    name = key.lower()
    return any(word in name for word in SECRETS) and not any(word in name for word in _NOT_SECRET)
