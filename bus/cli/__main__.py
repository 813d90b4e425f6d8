"""``python -m bus.cli``: the same as the installed command; the local stack starts its processes so."""

from bus.cli.main import main

main()
