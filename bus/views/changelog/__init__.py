"""What changed in a view, transaction by transaction, kept while somebody streams it.

`writing` appends in the transactions that change rows, `keeping` begins, ends and prunes logs, `reading` reads them.
"""
