"""Reports for people: tables, figures, world maps, and one offline HTML page.

Import from the modules: `report` (ReportInput, write_report), `figures` and `maps` (PNG), `answer_map`
(the page of `geoloc locate --map`), `examples` (which photos to show), `gallery` and `gallery_choice` (the page that
shows the collection), `banner` (the warnings at the top of both).
"""
