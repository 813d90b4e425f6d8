"""From topics to rows: what is declared (catalogue), what is applied (builder, worker), what readers see (tables).

Its walls: `decoding` (records to columns), `derived` (what follows in a batch's transaction), `rebuilding` (one
generation of tables to the next), `workers` (leases, readers), `oracle` (the fold that proves all of it).
Reads topics and the governance database, writes the views database; may use contracts, audit, infra and core.
"""
