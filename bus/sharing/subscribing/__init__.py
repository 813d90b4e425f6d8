"""A consumer's stream of a view, read by its consumer: as Server-Sent Events, or from the topic with `Subscriber`.

Reads share topics, which are filtered and masked already, and asks `bus.access` again while a stream is open;
may touch Kafka, the streams database (reading) and what is below; writes nothing but audit entries.
"""
