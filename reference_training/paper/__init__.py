"""The paper as data: its tables and figures, and its printed numbers."""
