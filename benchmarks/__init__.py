"""The figures of the performance page, side by side with their peers, one figure a file.

Run by `scripts/bench` in an environment of its own, which has the peers; the product never installs them.
"""
