"""Networks by name, their layers, and where their weights come from."""
