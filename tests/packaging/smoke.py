"""Uses an installed ulfd as a stranger would: `python smoke.py native` (or composite).

Run outside the repository, with nothing but ulfd and what it requires; the argument is the kernel
that this installation is expected to choose for NumPy arrays.
"""

import sys

import numpy as np

import ulfd
from ulfd import env
from ulfd.gradients import closed_form
from ulfd.kernels import registry


def main(expected: str) -> None:
    """Raises AssertionError unless the kernel `expected` serves, and serves right."""
    problem = registry.Problem("numpy", "cpu", ("float32",) * 3, (4, 8, 7, 7), (4, 1, 7, 7))
    assert registry.select(problem) == expected, env.report()

    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(2, 4, 8, 7, 7)).astype(np.float32)
    log_variance = generator.normal(size=(4, 1, 7, 7)).astype(np.float32)
    loss, gradients = ulfd.value_and_grad(student, teacher, log_variance)
    truth = closed_form(student, teacher, log_variance)
    assert np.isclose(
        loss, (np.exp(-log_variance) * (student - teacher) ** 2 + 2 * log_variance).mean()
    )
    for found, exact in zip(gradients, truth, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-7)
    print(env.report())


if __name__ == "__main__":
    main(sys.argv[1])
