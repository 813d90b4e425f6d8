"""The rules as they are published: checked, numbered, kept, and taken back only by two people."""
