"""What governance staff do: departments, contracts, views and grants are applied here, checked as a whole.

Touches the rooms below it; the web and the command line call it and decide nothing themselves.
"""
