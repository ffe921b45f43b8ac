"""Names a Linux wheel for the oldest systems that it runs on: `python manylinux.py dist/*.whl`.

What the wheel needs of the C library decides (auditwheel reads it); the file is renamed and its
metadata with it. An index takes no wheel called linux_x86_64. Wheels for a release are built in a
manylinux image, on an older C library (.github/workflows/release.yml).
"""

import re
import subprocess
import sys

TAG = re.compile(r'platform\s+tag:\s+"((?:many|musl)linux_\w+)"')


def platform_tag(report: str) -> str:
    """The platform tag that `auditwheel show` found.

    Raises:
        ValueError: there is none: the wheel needs what no standard system has.
    """
    found = TAG.search(report)
    if found is None:
        raise ValueError(f"auditwheel finds no manylinux system that this wheel runs on:\n{report}")
    return found[1]


def main(wheel: str) -> None:
    """Rename the wheel in place."""
    show = [sys.executable, "-m", "auditwheel", "show", wheel]
    report = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    name = [sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag"]
    subprocess.run([*name, platform_tag(report), wheel], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
