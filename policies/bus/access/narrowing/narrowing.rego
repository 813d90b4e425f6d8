# METADATA
# title: What a view's own rule takes away
# description: >-
#   A view may have rules of its own in the package data.bus.views.<view>: `allow` and `allow_all` for the request,
#   `include` for a row, `hint` for who is refused. They stand beside the grant rules and can only narrow them: the bus
#   asks both, and shows what both allow. Each answer counts only when it is `true`.
package bus.access.narrowing

# METADATA
# title: The view's own answer but the rows
# description: "`ruled` tells whether the view has rules of its own; without them nothing is taken away."
answer := {
	"ruled": _ruled,
	"allow": _view_allow,
	"allow_all": _view_allow_all,
	"hint": _hint,
}

# METADATA
# title: The view's own rule lets this row through
# description: Compiled to a filter with the row unknown, as data.bus.access.include is.
# compile:
#   unknowns: [input.row]
include if data.bus.views[input.view].include == true

default _ruled := false

_ruled if is_object(data.bus.views[input.view])

default _view_allow := false

_view_allow if data.bus.views[input.view].allow == true

default _view_allow_all := false

_view_allow_all if {
	_view_allow
	data.bus.views[input.view].allow_all == true
}

default _hint := ""

_hint := data.bus.views[input.view].hint if is_string(data.bus.views[input.view].hint)
