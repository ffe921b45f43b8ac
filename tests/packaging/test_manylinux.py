"""The platform tag is read from auditwheel's report, or the wheel is refused."""

import pytest

from .manylinux import platform_tag

REPORT = """
ulfd-0.1.0-py3-none-linux_x86_64.whl is consistent with the following
platform tag: "manylinux_2_35_x86_64".

The wheel references external versioned symbols
"""


def test_the_tag_that_auditwheel_found_is_taken() -> None:
    assert platform_tag(REPORT) == "manylinux_2_35_x86_64"


def test_a_wheel_that_no_standard_system_serves_is_refused() -> None:
    with pytest.raises(ValueError, match="no manylinux system"):
        platform_tag(REPORT.replace("many", ""))
