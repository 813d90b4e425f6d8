"""The oracle: events folded in plain Python, compared with the tables by tests and by `bus views verify`.

Shares no code with what it proves: neither the builder nor what is derived from it.
"""
