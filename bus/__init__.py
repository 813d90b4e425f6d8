"""An event-driven data-sharing bus for the departments of one government."""
