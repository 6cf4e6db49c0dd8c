"""What an experiment came to: asked for after its end, told from the primary database.

`decision` decides and needs no database; `tally` counts what this process serves and writes it down; `store`
holds the SQL; `accounting` puts them together.
"""
