"""The error that the command line prints as one message instead of a traceback."""


class RunError(Exception):
    """What went wrong, why, and how to go on. Nothing already computed is lost."""

    told = False
    """Whether rank 0 raises, and so prints, the same error."""
