"""What any program needs, whatever it learns: errors, files, ranks, workers, signals, the clock."""
