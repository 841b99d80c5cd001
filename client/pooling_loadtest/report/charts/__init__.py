"""Charts of the report, as Vega-Lite specifications.

A colour such as "@blue" is a name that the page replaces by the colour of the light or dark scheme.
"""
