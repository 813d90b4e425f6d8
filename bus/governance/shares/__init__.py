"""What grants of streams need of the broker and of workers, kept as it should be: topics, ACLs, schemas, change logs.

serve does it: it is where grants change, and a revocation is answered when the broker knows it too.
"""
