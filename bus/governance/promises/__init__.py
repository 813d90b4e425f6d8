"""What departments promised of the freshness of their data, and the alarms when they do not keep it.

serve watches it, not a worker: it knows every contract, those included that no view reads; it may write topics of the
bus, while a worker's principal only reads; and it goes on watching when the workers themselves are what is late.
"""
