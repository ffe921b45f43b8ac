"""The training loop and what it leaves behind: checkpoints, logs, the run record, the export."""
