"""The rules of the bus in plain Python: what an event, a contract, a view, a condition, a grant is.

No I/O, no clock, no environment: time and ids come in as arguments. Imports nothing but `bus.errors`.
"""
