# METADATA
# title: Who may read what of a shared view
# description: >-
#   Decides one request from the facts in the input and nothing else: the asking subject, the view, the purpose, the
#   channel, the day, and the consumer's grants on that view. Grants arrive with their row conditions in normal form:
#   an or of ands of atoms. A comparison with a missing value never matches.
# entrypoint: true
package bus.access

import data.bus.access.narrowing

default allow := false

# METADATA
# title: The request is granted
# description: One grant covers view, purpose and channel today; which rows is for `include` to say.
allow if count(_granted) == 1

default allow_all := false

# METADATA
# title: Every row is granted
# description: The second answer that an empty filter needs before it may mean "no filter".
allow_all if {
	allow
	some grant in _granted
	[] in grant.rows
}

# METADATA
# title: This row is granted
# description: >-
#   Compiled to a filter with the row unknown. `rows: [[]]` is every row and `rows: []` none; the `every` over a clause
#   from the input is meant, since `allow_all` must agree before an empty filter counts.
# compile:
#   unknowns: [input.row]
include if {
	allow
	some grant in _granted
	some clause in grant.rows
	every atom in clause { _match(atom) }
}

# METADATA
# title: The whole answer but the rows
# description: Both booleans, the deciding grants, the first check that failed, and what the view's own rule says.
verdict := {
	"allow": allow,
	"allow_all": allow_all,
	"grants": [grant.id | some grant in _granted],
	"reason": reason,
	"channels": _channels,
	"narrowing": narrowing.answer,
}

# METADATA
# title: The first check that failed
# description: In the order in which the bus answers. `ok` if none did.
reason := "not_granted" if {
	count(_current) == 0
} else := "purpose_not_granted" if {
	count(_for_purpose) == 0
} else := "channel_not_granted" if {
	count(_granted) == 0
} else := "ambiguous" if {
	count(_granted) > 1
} else := "ok"

# METADATA
# title: The engine decides
# description: >-
#   Asked every second: true only while one built-in request is allowed in part and its near miss is refused.
canary if {
	_canary_allowed
	not _canary_refused
}

_canary_allowed if {
	allow with input as _canary_input
	include with input as object.union(_canary_input, {"row": {"ward": 1}})
	not include with input as object.union(_canary_input, {"row": {"ward": 2}})
	not include with input as object.union(_canary_input, {"row": {"ward": null}})
}

_canary_refused if allow with input as object.union(_canary_input, {"purpose": "other"})

_canary_input := {
	"subject": {"department": "canary", "officer": null, "attributes": {}},
	"view": "canary",
	"purpose": "canary",
	"channel": "query",
	"time": "2026-01-01T00:00:00Z",
	"grants": [{
		"id": "canary",
		"consumer": "canary",
		"view": "canary",
		"purpose": "canary",
		"channels": ["query"],
		"valid_from": "2026-01-01",
		"valid_to": "2026-01-01",
		"rows": [[{"field": "ward", "op": "eq", "value": 1}]],
	}],
}

# the grants of this consumer, or of everybody, on this view that hold today; other facts are not believed
_current contains grant if {
	some grant in input.grants
	grant.consumer in {input.subject.department, "public"}
	grant.view == input.view
	today := substring(input.time, 0, 10)
	grant.valid_from <= today
	today <= grant.valid_to
}

# a department's own grants go before those of everybody
_for_purpose := _own if {
	count(_own) > 0
} else := {grant |
	some grant in _current
	grant.consumer == "public"
	grant.purpose == input.purpose
}

_own contains grant if {
	some grant in _current
	grant.consumer == input.subject.department
	grant.purpose == input.purpose
}

_channels contains channel if {
	some grant in _for_purpose
	some channel in grant.channels
}

_naming_channel contains grant if {
	some grant in _for_purpose
	input.channel in grant.channels
}

# a query may ask whatever a look-up may, and figures of its rows; a grant that names the channel itself goes first
_granted := _naming_channel if {
	count(_naming_channel) > 0
} else := {grant |
	input.channel in {"lookup", "aggregate"}
	some grant in _for_purpose
	"query" in grant.channels
}

_match(atom) if {
	atom.op == "eq"
	_present(atom)
	input.row[atom.field] == atom.value
}

_match(atom) if {
	atom.op == "ne"
	_present(atom)
	input.row[atom.field] != atom.value
}

_match(atom) if {
	atom.op == "lt"
	_present(atom)
	input.row[atom.field] < atom.value
}

_match(atom) if {
	atom.op == "lte"
	_present(atom)
	input.row[atom.field] <= atom.value
}

_match(atom) if {
	atom.op == "gt"
	_present(atom)
	input.row[atom.field] > atom.value
}

_match(atom) if {
	atom.op == "gte"
	_present(atom)
	input.row[atom.field] >= atom.value
}

_match(atom) if {
	atom.op == "in"
	_present(atom)
	input.row[atom.field] in atom.value
}

_match(atom) if {
	atom.op == "not_in"
	_present(atom)
	not input.row[atom.field] in atom.value
}

_match(atom) if {
	atom.op == "prefix"
	_present(atom)
	startswith(input.row[atom.field], atom.value)
}

_match(atom) if {
	atom.op == "not_prefix"
	_present(atom)
	not startswith(input.row[atom.field], atom.value)
}

_match(atom) if {
	atom.op == "present"
	input.row[atom.field] != null
}

_match(atom) if {
	atom.op == "missing"
	input.row[atom.field] == null
}

# null sorts below everything in Rego: a comparison needs a value on both sides
_present(atom) if {
	atom.value != null
	input.row[atom.field] != null
}
