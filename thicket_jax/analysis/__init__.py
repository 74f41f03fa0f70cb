"""Numbers from logged scores; no model.

An interval is (low, high), of 95 % unless a confidence says otherwise. In a row or record it is
`interval`, or `NAME_interval` beside the number NAME where there are several.
"""
