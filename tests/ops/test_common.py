"""What the operator files share."""

from __future__ import annotations

import pytest

from sparsecore.ops._common import fake_kernel


def test_old_libraries_are_told_from_new_files() -> None:
    with pytest.raises(
        ImportError, match=r"older than its Python files, which need 'of_tomorrow'.*Build again"
    ):
        fake_kernel("of_tomorrow")(lambda: None)
