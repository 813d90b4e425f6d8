"""How much may be asked in a day, counted in the governance database, so that no restart forgets it.

`bus.sharing.budget.spending` says what a question costs and which earlier ones it could be played off against.
"""
