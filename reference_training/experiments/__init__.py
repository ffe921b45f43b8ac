"""What wires the rooms together: runs on small data, rows and tables on ImageNet, the study."""
