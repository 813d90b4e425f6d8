"""What commands there are: where each is, and its line in `bus --help` (of its own help the first; a test compares)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Places = Mapping[str, tuple[str, str]]
"""Each command's module in `bus.cli` with its name there, and its line."""

COMMANDS: Final[Places] = {
    "up": (
        "stack:up",
        "Start what is missing of Kafka, OPA, serve and worker; harmless when all runs.",
    ),
    "down": (
        "stack:down",
        "Stop exactly what `bus up` or `bus demo` started.",
    ),
    "status": (
        "stack:status",
        "What runs, how far the views are, what is in quarantine; or one department's own picture.",
    ),
    "demo": (
        "stack:demo",
        "Start everything, publish real data of four departments, ask, verify; leaves the stack running.",
    ),
    "token": (
        "stack:token",
        "A short-lived token (15 minutes) from the local issuer, for the Authorization header.",
    ),
    "credentials": (
        "stack:credentials",
        "How a department's own systems reach the broker. Demo and administrators only.",
    ),
    "serve": (
        "processes:serve",
        "Serve HTTP: the doors, the registry, governance, the portal. Runs in the foreground.",
    ),
    "worker": (
        "processes:worker",
        "Build views out of the departments' events. Runs in the foreground; several share the views.",
    ),
    "streams": (
        "processes:streams",
        "Write what consumers may see of views to their topics. Runs in the foreground; one process writes at a time.",
    ),
    "publish": (
        "data:publish",
        "Publish JSON lines.",
    ),
    "query": (
        "querying:query",
        "Ask a view as a department, exactly as its own system would.",
    ),
    "subscribe": (
        "subscribe:subscribe",
        "Follow a view: first every row, then each change, one JSON object a line with the cursor after it.",
    ),
    "ask": (
        "questions:ask",
        "Ask a view a declared question about one row: yes or no, and not the record.",
    ),
    "departments": (
        "declare:departments",
        "The departments and their principals on the broker.",
    ),
    "contracts": (
        "declare:contracts",
        "What events must look like.",
    ),
    "views": (
        "views:views",
        "Shared views: declare, watch, verify.",
    ),
    "grants": (
        "declare:grants",
        "Who may read what, for which purpose.",
    ),
    "quarantine": (
        "data:quarantine",
        "What could not be applied, kept with its reasons.",
    ),
    "audit": (
        "data:audit",
        "Who saw what, in a log that cannot be quietly changed.",
    ),
    "policy": (
        "policy:policy",
        "The access rules: test, build, show.",
    ),
}

VIEWS: Final[Places] = {
    "discrepancies": (
        "discrepancies:discrepancies",
        "Where a second department reports something else than what a view shows; counts by pair without a view.",
    ),
    "rebuild": (
        "rebuild:rebuild",
        "Build a view anew from its topics beside the live one, compare, and swap; readers notice nothing.",
    ),
    "undo": (
        "rebuild:undo",
        "Put back what the last rebuild replaced; it then catches up with its topics.",
    ),
    "lineage": (
        "lineage:lineage",
        "Say of each value which event made it: id, department, time, contract version, place. No values are shown.",
    ),
    "check": (
        "checking:check_views",
        "Check views without applying them: every problem at its line, against the running bus or the schemas folder.",
    ),
    "apply": (
        "checking:apply_view",
        "Declare or change a view; running workers build it. A refusal names every problem at its line.",
    ),
    "declassify": (
        "checking:declassify",
        "Let one column show one field more openly than its contract does, signed, until a day.",
    ),
    "declassifications": (
        "checking:list_declassifications",
        "All declassifications, and whether each is in force.",
    ),
    "reclassify": (
        "checking:reclassify",
        "Take a declassification back, at once: the column is as guarded as its sources again.",
    ),
}
"""Those of `bus views` that stand in files of their own."""
