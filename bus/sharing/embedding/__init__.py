"""Related views beside each row: ``select=legal_name,inspections:inspection_history(inspection_date,result)``.

`relations` says which views are related, `answering` asks the decision of each and puts the rows together, `store` is
the SQL.
"""
