"""Both databases: schema, URLs and engines, migrations, and the statements run against them."""
