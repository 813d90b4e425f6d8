"""`python -m bus.infra.stack` is the supervisor: it expects its plan on standard input and is started by `up`."""

from bus.infra.stack.supervisor import main

main()
