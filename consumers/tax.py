"""The tax office asks which food businesses of a ward it may expect a levy from.

Run it beside a running demo: ``python -m consumers.tax 20``. Copy it: `QueryClient.connect` finds the
local bus; elsewhere pass the address and your identity provider's token.
"""

from __future__ import annotations

import sys

from bus import QueryClient
from bus.errors import BusError

FIELDS = ("licence_number", "legal_name", "status", "term_expiration", "last_result")


def main(ward: str = "20") -> int:
    """Prints the first businesses of the ward; exit code 1 and one line when the bus refuses."""
    try:
        with QueryClient.connect("tax") as bus:
            answer = bus.query(
                "food_business",
                purpose="levy",
                select=FIELDS,
                where={"ward": f"eq.{ward}"},
                order="licence_number.asc",
                limit=10,
                count=True,
            )
    except BusError as error:
        print(error.detail, file=sys.stderr)
        return 1
    print(f"ward {ward}: {answer.total} food businesses, masked: {', '.join(answer.masked) or 'nothing'}")
    for row in answer.rows:
        print("  " + "  ".join(str(row[field]) for field in FIELDS))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
