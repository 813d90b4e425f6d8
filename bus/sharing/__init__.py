"""The doors out: a question in PostgREST's dialect becomes one permitted, audited answer.

SQL is built in `store.py` only, from an `Allow` of `bus.access`; nothing here reads rows without one.
"""
