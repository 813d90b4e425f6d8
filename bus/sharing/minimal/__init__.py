"""Minimal answers: yes or no to a question that a view declares, for those who need no more than that.

The decision, the limits and the audit entry are those of every other door; the record never leaves the database.
"""
