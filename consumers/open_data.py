"""Open data for everybody: the wards with the most failed food inspections. No token, no library, just the address.

Run it beside a running demo, with the address that `bus status` shows: ``python -m consumers.open_data
http://127.0.0.1:8080``. Copy it: it uses nothing but Python's own library.
"""

from __future__ import annotations

import json
import sys
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import urlopen

QUESTION = {"order": "failed.desc,ward", "ward": "not.is.null", "limit": "10"}


def main(address: str, view: str = "ward_hygiene") -> int:
    """Prints the first rows of the view; exit code 1 and one line when the bus refuses."""
    if not address.startswith(("http://", "https://")):
        print(f"{address} is not an address such as http://127.0.0.1:8080", file=sys.stderr)
        return 2
    question = urlencode(QUESTION if view == "ward_hygiene" else {"limit": "10"})
    try:
        with urlopen(f"{address.rstrip('/')}/v1/open/{quote(view)}?{question}", timeout=30) as answer:  # noqa: S310
            rows, suppressed = json.load(answer), answer.headers.get("Suppressed", "0")
    except HTTPError as refused:
        print(json.load(refused)["detail"], file=sys.stderr)
        return 1
    except URLError as error:
        print(f"{address} does not answer: {error.reason}", file=sys.stderr)
        return 1
    columns = list(rows[0]) if rows else []
    print("  ".join(columns))
    for row in rows:
        print("  ".join(("–" if row[name] is None else str(row[name])).rjust(len(name)) for name in columns))
    if suppressed != "0":
        print(f"{suppressed} figures about few persons are withheld (–).")
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m consumers.open_data ADDRESS [VIEW]")
    sys.exit(main(*sys.argv[1:]))
