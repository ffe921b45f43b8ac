"""What computes `ulfd.losses` faster, and the registry that says which kernel serves what."""
