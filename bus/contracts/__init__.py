"""What an event must look like: the registry of contracts, their compatibility, codec, validation and quarantine.

Also the register of departments and purposes. Everything kept here lives in the governance database (`store`).
May use `audit`, `infra`, `core`; knows nothing of publishing or views, which both build on it.
"""
