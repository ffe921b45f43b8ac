import pytest

from tests.ulfd_jax.stand_in import STAND_IN
from ulfd.kernels import registry
from ulfd_jax import functional


@pytest.fixture(params=["composite", "native", "stand-in"])
def kernel(request, monkeypatch):
    """The name of an implementation; "stand-in" is `composite` through `ulfd_jax.derivatives`."""
    monkeypatch.setattr(registry, "KERNELS", dict(registry.KERNELS))
    registry.register(
        registry.Kernel(
            "stand-in",
            priority=-1,
            refuses=lambda problem: "no elements" if problem.options.reduction == "none" else None,
        )
    )
    monkeypatch.setitem(functional.IMPLEMENTATIONS, "stand-in", lambda _: STAND_IN)
    yield request.param
    registry.chosen.cache_clear()  # the names chosen here are no kernels elsewhere
