package system.authz_test

import data.system.authz

_tokens := [crypto.sha256("right"), crypto.sha256("next")]

_allowed(request) if authz.allow with data.system.token_sha256 as _tokens with input as object.union(
	{"method": "POST", "path": ["v1", "data", "bus", "access", "allow"], "identity": "right", "params": {}},
	request,
)

test_decision_with_token_allowed if _allowed({})

test_decision_with_second_token_allowed if _allowed({"identity": "next"})

test_decision_without_token_refused if {
	not authz.allow with data.system.token_sha256 as _tokens with input as {
		"method": "POST", "path": ["v1", "data", "bus", "access", "allow"], "params": {},
	}
}

test_decision_with_wrong_token_refused if not _allowed({"identity": "wrong"})

test_decision_with_empty_token_refused if not _allowed({"identity": ""})

test_decision_without_configured_tokens_refused if {
	not authz.allow with data.system.token_sha256 as [] with input as {
		"method": "POST", "path": ["v1", "data", "bus", "access", "allow"], "identity": "right", "params": {},
	}
}

test_filter_allowed if _allowed({"path": ["v1", "compile", "bus", "access", "include"]})

test_rule_below_a_subpackage_allowed if _allowed({"path": ["v1", "data", "bus", "access", "canary", "allow"]})

test_whole_package_refused if not _allowed({"path": ["v1", "data", "bus", "access"]})

test_traversal_refused if not _allowed({"path": ["v1", "data", "bus", "access", "..", "grants"]})

test_neighbour_package_refused if not _allowed({"path": ["v1", "data", "bus", "grants", "all"]})

test_own_token_hashes_refused if not _allowed({"path": ["v1", "data", "system", "token_sha256"]})

test_reading_data_refused if not _allowed({"method": "GET"})

test_writing_data_refused if not _allowed({"method": "PUT", "path": ["v1", "data", "bus", "access", "allow"]})

test_patching_data_refused if not _allowed({"method": "PATCH", "path": ["v1", "data", "bus", "access", "allow"]})

test_listing_policies_allowed if _allowed({"method": "GET", "path": ["v1", "policies"]})

test_reading_a_policy_allowed if _allowed({"method": "GET", "path": ["v1", "policies", "rules", "access.rego"]})

test_writing_a_policy_refused if not _allowed({"method": "PUT", "path": ["v1", "policies", "evil"]})

test_deleting_a_policy_refused if not _allowed({"method": "DELETE", "path": ["v1", "policies", "evil"]})

test_status_and_health_allowed if {
	_allowed({"method": "GET", "path": ["v1", "status"]})
	_allowed({"method": "GET", "path": ["health"], "params": {"bundles": ["true"]}})
}

test_health_without_token_refused if not _allowed({"method": "GET", "path": ["health"], "identity": ""})

test_free_query_refused if not _allowed({"path": ["v1", "query"]})

test_old_compile_refused if not _allowed({"path": ["v1", "compile"]})

test_configuration_refused if not _allowed({"method": "GET", "path": ["v1", "config"]})

test_provenance_allowed if _allowed({"params": {"provenance": ["true"]}})

test_explanation_refused if not _allowed({"params": {"explain": ["full"]}})
