package bus.views.resident_test

import data.bus.views.resident

test_a_system_may_look_up if {
	every channel in ["lookup", "question"] {
		resident.allow with input as _asked(channel, null)
		resident.allow_all with input as _asked(channel, null)
		resident.include with input as object.union(_asked(channel, null), {"row": {"citizen_id": "x"}})
	}
}

test_more_needs_an_officer if {
	every channel in ["query", "aggregate"] {
		resident.allow with input as _asked(channel, "zhao.min")
		every nobody in [null, "", 1, true, [], {}] {
			not resident.allow with input as _asked(channel, nobody)
			not resident.allow_all with input as _asked(channel, nobody)
			not resident.include with input as object.union(_asked(channel, nobody), {"row": {"citizen_id": "x"}})
		}
	}
}

test_never_as_a_stream_or_an_export if {
	every channel in ["stream", "export", "", null] {
		not resident.allow with input as _asked(channel, "zhao.min")
		not resident.include with input as _asked(channel, "zhao.min")
	}
}

test_nothing_without_input if {
	not resident.allow with input as {}
	not resident.allow_all with input as {}
	not resident.include with input as {}
}

test_the_refused_are_told_why if contains(resident.hint, "officer") with input as {}

_asked(channel, officer) := {"channel": channel, "subject": {"officer": officer}}
