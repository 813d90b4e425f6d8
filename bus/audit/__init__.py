"""What happened: the append-only log of disclosures and decisions, a hash chain in the governance database.

Lies below every room that must write an entry; may touch the governance database, infra and core.
"""
