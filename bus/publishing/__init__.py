"""From a department's system to its topic: `Publisher`, single events and bulk, and rows of files.

Events are checked against the contract before anything is sent; what is refused goes to quarantine with its reasons.
May use `contracts` and below; knows nothing of views or grants.
"""
