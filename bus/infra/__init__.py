"""What is outside the bus, one file for each system: Kafka, the database, OPA, the local processes.

Knows no rule of the bus: it imports `core` and `errors` only, and every room above may use it.
"""
