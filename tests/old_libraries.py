"""What the oldest libraries do otherwise than today's, for the tests that must leave it out."""

from __future__ import annotations

import pytest
import transformers
from packaging.version import Version

OLD_CLIP = Version(transformers.__version__) < Version("4.31")


def needs_pooling_at_the_end(family: str) -> None:
    """Skips a test whose reference pools a grown vocabulary's prompt at its highest token, the word's own."""
    if OLD_CLIP and family == "sdxl":
        pytest.skip("this transformers pools at the highest token, in a table that has grown the word's")


needs_weights_alone = pytest.mark.skipif(OLD_CLIP, reason="this transformers has positions among CLIP's weights")
