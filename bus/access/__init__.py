"""Who may see what: identity from tokens, grants, OPA's decisions, the WHERE clause and the masks they become.

Every way to rows starts with `Decider.decide`; only its `Allow` opens `filters.where`. May touch the
governance database (grants) and OPA; may use views, contracts, audit, infra and core.
"""
