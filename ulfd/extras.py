"""Optional dependencies: a missing one is an ImportError that prints the exact pip line."""

from importlib.util import find_spec


def require(*modules: str, extra: str, by: str = "this part of ulfd") -> None:
    """Checks, without importing them, that the modules which the extra `extra` brings are there.

    Args:
        by: what needs them, for the message.
    Raises:
        ImportError: some are not, with the command that installs them.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ImportError(
            f"{', '.join(missing)} not installed, but {by} needs it. Install it "
            f"with:\n    pip install 'ulfd[{extra}]'\nor in a checkout with:\n"
            f"    pip install '.[{extra}]'"
        )
