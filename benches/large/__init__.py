"""A model of seven billion parameters: how it loads, what memory it takes, how fast it is."""
