"""How good answers are: accuracy, intervals, baselines, ceilings and paired comparisons.

Kept empty of imports, so that reading `geoloc.evaluation.settings` costs nothing; the entry point is
`geoloc.evaluation.evaluate.evaluate`.
"""
