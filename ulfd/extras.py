"""Optional dependencies: a missing one is an ImportError that prints the exact pip line."""

from importlib import import_module
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Imports `module`, which the extra `extra` brings.

    Raises:
        ImportError: it is not installed, with the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name.split(".")[0]):
            raise  # something that the module itself needs is broken: say that, not this
        raise ImportError(
            f"{error.name} is not installed, but this part of ulfd needs it. Install it with:\n"
            f"    pip install 'ulfd[{extra}]'"
        ) from error
