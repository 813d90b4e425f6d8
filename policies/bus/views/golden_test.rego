package bus.views_golden_test

# What holds for the own rules of every view, present and future.

_rules[view] := rules if {
	some view, rules in data.bus.views
	is_object(rules)
}

test_nothing_is_allowed_without_input if {
	every view in object.keys(_names) {
		not data.bus.views[view].allow with input as {}
		not data.bus.views[view].allow_all with input as {}
		not data.bus.views[view].include with input as {}
	}
}

test_a_row_alone_is_no_request if {
	every view in object.keys(_names) {
		asked := {"row": {"id": 1}, "subject": {}, "grants": []}
		not data.bus.views[view].allow with input as asked
		not data.bus.views[view].include with input as asked
	}
}

test_every_row_needs_the_request_to_be_allowed if {
	every channel in ["lookup", "query", "stream", "export", "aggregate", "question", "", null] {
		every view in object.keys(_names) { _no_more_than_allowed(view, {"channel": channel, "subject": {}}) }
	}
}

_no_more_than_allowed(view, asked) if not data.bus.views[view].allow_all with input as asked

_no_more_than_allowed(view, asked) if data.bus.views[view].allow with input as asked

_names := {view: true | some view, _ in _rules}
