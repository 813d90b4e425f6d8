package bus.access_test

import data.bus.access

test_a_grant_allows if {
	access.allow with input as _input
	access.verdict.reason == "ok" with input as _input
}

test_nothing_is_allowed_without_input if {
	not access.allow with input as {}
	not access.allow_all with input as {}
	not access.include with input as {}
}

test_another_department_is_refused if {
	not access.allow with input as _with("/subject/department", "food")
	access.reason == "not_granted" with input as _with("/subject/department", "food")
}

test_another_view_is_refused if {
	access.reason == "not_granted" with input as _with("/view", "complaint")
	not access.allow with input as _with("/view", "complaint")
}

test_the_last_day_is_granted_and_the_next_is_not if {
	access.allow with input as _with("/time", "2026-12-31T23:59:59+00:00")
	not access.allow with input as _with("/time", "2027-01-01T00:00:00+00:00")
	access.reason == "not_granted" with input as _with("/time", "2027-01-01T00:00:00+00:00")
}

test_the_first_day_is_granted_and_the_one_before_is_not if {
	access.allow with input as _with("/time", "2026-01-01T00:00:00+00:00")
	not access.allow with input as _with("/time", "2025-12-31T23:59:59+00:00")
}

test_another_purpose_is_refused if {
	every purpose in ["audit", "LEVY", "levy ", "", null, ["levy"], 1] {
		not access.allow with input as _with("/purpose", purpose)
		access.reason == "purpose_not_granted" with input as _with("/purpose", purpose)
	}
}

test_another_channel_is_refused_with_those_granted if {
	every channel in ["stream", "export", "", null] {
		not access.allow with input as _with("/channel", channel)
		access.reason == "channel_not_granted" with input as _with("/channel", channel)
		access.verdict.channels == {"query"} with input as _with("/channel", channel)
	}
}

test_a_query_grant_covers_look_ups_and_not_the_other_way if {
	access.allow with input as _with("/channel", "lookup")
	not access.allow with input as _with("/grants/0/channels", ["lookup"])
}

test_a_query_grant_covers_figures_and_no_questions if {
	access.allow with input as _with("/channel", "aggregate")
	not access.allow with input as _with("/channel", "question")
	access.reason == "channel_not_granted" with input as _with("/channel", "question")
}

test_a_grant_of_figures_or_questions_covers_nothing_else if {
	every granted in ["aggregate", "question"] {
		narrow := object.union(_grant, {"channels": [granted]})
		asked := json.patch(_with("/channel", granted), [{"op": "replace", "path": "/grants/0", "value": narrow}])
		access.allow with input as asked
		every channel in ["lookup", "query", "stream", "export"] {
			not access.allow with input as json.patch(asked, [{"op": "replace", "path": "/channel", "value": channel}])
		}
	}
}

test_the_grant_that_names_the_channel_decides if {
	narrow := object.union(_grant, {"id": "narrow", "channels": ["lookup"]})
	asked := json.patch(_with("/channel", "lookup"), [{"op": "add", "path": "/grants/1", "value": narrow}])
	access.verdict.grants == ["narrow"] with input as asked
}

test_two_grants_for_one_request_decide_nothing if {
	twin := object.union(_grant, {"id": "twin", "rows": [[]]})
	asked := json.patch(_input, [{"op": "add", "path": "/grants/1", "value": twin}])
	not access.allow with input as asked
	not access.allow_all with input as asked
	access.reason == "ambiguous" with input as asked
}

test_what_everybody_may_read_a_department_may_read if {
	open := object.union(_grant, {"id": "open", "consumer": "public"})
	access.allow with input as _with("/grants/0", open)
	both := json.patch(_input, [{"op": "add", "path": "/grants/1", "value": open}])
	access.verdict.grants == ["tax-business"] with input as both
}

test_no_condition_is_every_row_and_no_clause_is_none if {
	access.allow_all with input as _with("/grants/0/rows", [[]])
	access.include with input as _row(_with("/grants/0/rows", [[]]), {})
	not access.allow_all with input as _with("/grants/0/rows", [])
	not access.include with input as _row(_with("/grants/0/rows", []), {})
	access.allow with input as _with("/grants/0/rows", [])
}

test_a_condition_is_not_every_row if not access.allow_all with input as _input

test_refused_requests_include_no_row if {
	every_row := _with("/grants/0/rows", [[]])
	refused := json.patch(every_row, [{"op": "replace", "path": "/purpose", "value": "audit"}])
	not access.include with input as _row(refused, {"ward": 1})
	not access.allow_all with input as refused
}

test_operators_match_and_their_near_misses_do_not if {
	every case in [
		{"op": "eq", "value": 1, "yes": [1, 1.0], "no": [2, "1", true]},
		{"op": "ne", "value": 1, "yes": [2, 0.9], "no": [1]},
		{"op": "lt", "value": 1, "yes": [0, -1], "no": [1, 2]},
		{"op": "lte", "value": 1, "yes": [0, 1], "no": [1.1]},
		{"op": "gt", "value": 1, "yes": [1.1, 2], "no": [1, 0]},
		{"op": "gte", "value": 1, "yes": [1, 2], "no": [0.9]},
		{"op": "in", "value": ["a", "b"], "yes": ["a", "b"], "no": ["A", "c", ""]},
		{"op": "not_in", "value": ["a", "b"], "yes": ["A", "c", ""], "no": ["a", "b"]},
		{"op": "prefix", "value": "a%", "yes": ["a%", "a%b"], "no": ["a", "axb", "A%"]},
		{"op": "not_prefix", "value": "a%", "yes": ["a", "axb", "A%"], "no": ["a%", "a%b"]},
	] {
		every value in case.yes { _included(case, value) }
		every value in case.no { not _included(case, value) }
		not _included(case, null)
		not _included_without(case)
	}
}

test_missing_is_null_and_present_is_not if {
	_included({"op": "missing"}, null)
	not _included({"op": "missing"}, 0)
	not _included({"op": "missing"}, "")
	_included({"op": "present"}, 0)
	_included({"op": "present"}, "")
	not _included({"op": "present"}, null)
}

test_a_comparison_with_null_never_matches if {
	every op in ["eq", "ne", "lt", "lte", "gt", "gte"] {
		not _included({"op": op, "value": null}, 1)
		not _included({"op": op, "value": null}, null)
	}
}

test_an_unknown_operator_matches_nothing if not _included({"op": "like", "value": "a"}, "a")

test_clauses_are_alternatives_of_conjunctions if {
	low := {"field": "ward", "op": "lt", "value": 3}
	high := {"field": "ward", "op": "gt", "value": 10}
	open := {"field": "open", "op": "eq", "value": true}
	asked := _with("/grants/0/rows", [[low, open], [high]])
	access.include with input as _row(asked, {"ward": 1, "open": true})
	access.include with input as _row(asked, {"ward": 11, "open": false})
	not access.include with input as _row(asked, {"ward": 1, "open": false})
	not access.include with input as _row(asked, {"ward": 5, "open": true})
}

test_the_canary_sings if access.canary

_grant := {
	"id": "tax-business",
	"consumer": "tax",
	"view": "business",
	"purpose": "levy",
	"channels": ["query"],
	"valid_from": "2026-01-01",
	"valid_to": "2026-12-31",
	"rows": [[{"field": "ward", "op": "eq", "value": 1}]],
}

_input := {
	"subject": {"department": "tax", "officer": null, "attributes": {}},
	"view": "business",
	"purpose": "levy",
	"channel": "query",
	"time": "2026-05-01T12:00:00+00:00",
	"grants": [_grant],
}

_with(path, value) := json.patch(_input, [{"op": "replace", "path": path, "value": value}])

_row(asked, row) := object.union(asked, {"row": row})

_asked(case) := _with("/grants/0/rows", [[object.union(object.remove(case, ["yes", "no"]), {"field": "f"})]])

_included(case, value) if access.include with input as _row(_asked(case), {"f": value})

_included_without(case) if access.include with input as _row(_asked(case), {})
