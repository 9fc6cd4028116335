"""Reports for people: tables, figures, world maps, and one offline HTML page.

Import from the modules: `report` (ReportInput, write_report), `figures` and `maps` (PNG), `answer_map`
(the page of `geoloc locate --map`), `examples` (which photos to show).
"""
