"""Search in the text of fields whose view declares ``search: true``: PostgREST's operators ``plfts`` and ``fts``.

`terms` reads what is sought, `store` is its SQL. One exact rule on both databases, without a dictionary: a term is
found where its characters stand next to each other in the value, A to Z and a to z being alike and every other
character only itself. So Chinese, which writes no spaces between words, is searched as any other text. There is no
index: the rows that the other filters leave are read.
"""
