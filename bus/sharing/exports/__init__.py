"""All rows of a question as a file: CSV, JSON lines or Parquet, written as it is read and as fast as it is taken.

`door` decides and records, `reading` reads one consistent state, `files` writes; SQL is built in `store`.
"""
