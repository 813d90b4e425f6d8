package bus.access.narrowing_test

import data.bus.access.narrowing

test_a_view_without_rules_is_not_narrowed if {
	narrowing.answer == {"ruled": false, "allow": false, "allow_all": false, "hint": ""} with input as {"view": "other"}
		with data.bus.views as {"resident": {}}
	not narrowing.include with input as {"view": "other"} with data.bus.views as {"resident": {"include": true}}
}

test_a_view_with_rules_is_asked if {
	rules := {"allow": true, "allow_all": true, "include": true, "hint": "ask"}
	narrowing.answer == {"ruled": true, "allow": true, "allow_all": true, "hint": "ask"} with input as _input
		with data.bus.views as {"resident": rules}
	narrowing.include with input as _input with data.bus.views as {"resident": rules}
}

test_rules_that_say_nothing_refuse if {
	narrowing.answer == {"ruled": true, "allow": false, "allow_all": false, "hint": ""} with input as _input
		with data.bus.views as {"resident": {}}
	not narrowing.include with input as _input with data.bus.views as {"resident": {}}
}

test_only_true_is_yes if {
	every answer in ["true", 1, {}, [], {"a": true}, null, false] {
		rules := {"allow": answer, "allow_all": answer, "include": answer}
		not narrowing.answer.allow with input as _input with data.bus.views as {"resident": rules}
		not narrowing.answer.allow_all with input as _input with data.bus.views as {"resident": rules}
		not narrowing.include with input as _input with data.bus.views as {"resident": rules}
	}
}

test_every_row_needs_the_request_too if {
	not narrowing.answer.allow_all with input as _input
		with data.bus.views as {"resident": {"allow": false, "allow_all": true}}
}

test_a_hint_is_a_text if {
	narrowing.answer.hint == "" with input as _input with data.bus.views as {"resident": {"hint": 1}}
}

_input := {"view": "resident"}
