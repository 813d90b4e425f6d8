"""From topics to rows: who builds a view (lease), what is applied (builder), what readers see (tables, store).

Reads topics and the governance database, writes the views database; may use contracts, audit, infra and core.
"""
