# METADATA
# title: Who may ask the local OPA what
# description: >-
#   Denies by default. Whoever holds a token may ask for decisions and filters of the package data.bus.access and read
#   what is loaded; nobody may write a policy or data over HTTP, since the signed bundle is the only way in.
#   data.system.token_sha256 (a list of hashes, so that a token can be replaced without a gap) is a local file.
# entrypoint: true
package system.authz

default allow := false

allow if {
	_known
	_permitted
	_harmless_parameters
}

_known if {
	some hash in data.system.token_sha256
	crypto.sha256(input.identity) == hash
}

# a rule below data.bus.access, never the package as a whole
_permitted if {
	input.method == "POST"
	["v1", kind, "bus", "access", rule] = array.slice(input.path, 0, 5)
	kind in {"data", "compile"}
	_plain(rule)
	every segment in array.slice(input.path, 5, count(input.path)) { _plain(segment) }
}

_permitted if {
	input.method == "GET"
	input.path in [["v1", "policies"], ["v1", "status"], ["health"]]
}

_permitted if {
	input.method == "GET"
	["v1", "policies", _] = array.slice(input.path, 0, 3)
}

# explain, metrics and instrument answer with more than the decision
_harmless_parameters if {
	every name, _ in input.params { name in {"provenance", "bundles", "plugins", "pretty"} }
}

_plain(segment) if regex.match(`^[a-z][a-z0-9_]*$`, segment)
