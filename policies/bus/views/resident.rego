# METADATA
# title: Residents' records leave one at a time, or to a named officer
# description: >-
#   Beside the grants on `resident`: whatever they say, nobody gets residents as a stream or an export, and whoever
#   asks for more than single records by their key names the officer who answers for it in the token.
package bus.views.resident

default allow := false

# METADATA
# title: One record, or a yes or no about one
# description: A system may look up without an officer.
allow if input.channel in {"lookup", "question"}

# METADATA
# title: More than one record
# description: Somebody is named who answers for it.
allow if {
	input.channel in {"query", "aggregate"}
	is_string(input.subject.officer)
	input.subject.officer != ""
}

default allow_all := false

# METADATA
# title: No row is taken away
# description: Which residents are shown is for the grant to say.
allow_all if allow

# METADATA
# title: Any row of an allowed request
# description: Compiled to a filter with the row unknown.
# compile:
#   unknowns: [input.row]
include if allow

# METADATA
# title: What a refused department is told
# description: In the answer's text.
hint := concat(" ", [
	"Residents' records are given one at a time by their key, and otherwise only to an officer",
	"who is named in the token; never as a stream or an export.",
])
