"""From one generation of a view's tables to the next: changed in place, or built beside, compared, swapped, undone.

May use builders and tables; who asks and when is the business of `workers`.
"""
