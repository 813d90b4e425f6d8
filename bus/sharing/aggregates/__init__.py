"""Figures over the rows of a view: counts, sums, averages, smallest and largest values, perhaps by groups.

`figures` says which may be asked for, `store` is their SQL, `withholding` what is done to the figures of few rows.
"""
