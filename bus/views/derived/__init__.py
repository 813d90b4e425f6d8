"""What is kept in the transaction of a view's batch: its history, its disagreements, what is computed from it.

Everything here follows a builder (`followers`) and reads the tables that it leaves behind; nothing here reads Kafka.
"""
