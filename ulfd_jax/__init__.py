"""The JAX adapter. Empty so far: only the check that JAX is there."""

from ulfd.extras import require

require("jax", extra="jax")
