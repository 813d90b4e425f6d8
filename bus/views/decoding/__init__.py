"""From Kafka's records to columns: what aiokafka fetched, decoded batch by batch, bad events set aside with reasons.

Knows contracts and codecs; knows no view, no database, no lease.
"""
