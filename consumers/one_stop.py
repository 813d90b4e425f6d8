"""The one-stop service centre asks whether a food business holds a licence, instead of asking the citizen for a copy.

Run it beside a running demo: ``python -m consumers.one_stop 1926502``. Copy it: `QueryClient.connect` finds the local
bus; elsewhere pass the address and your identity provider's token. It gets yes or no, and never sees the record.
"""

from __future__ import annotations

import sys

from bus import QueryClient
from bus.errors import BusError

QUESTIONS = {"was_ever_licensed": "licensed, never cancelled or revoked", "has_valid_licence": "licence valid today"}
WORDS = {True: "yes", False: "no", None: "not known"}


def main(licence_number: str = "1926502") -> int:
    """Prints one line for each question; exit code 1 and one line when the bus refuses."""
    try:
        with QueryClient.connect("one_stop") as bus:
            for question, words in QUESTIONS.items():
                said = bus.ask(
                    "food_business", question, purpose="service_handling", key={"licence_number": licence_number}
                )
                print(f"{licence_number}: {words}: {WORDS[said.answer]} (as of {said.as_of})")
    except BusError as error:
        print(error.detail, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
