"""Before the first property is imported: have the shapes of the oracle checked, and our Hypothesis profiles known."""

from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

install_import_hook("reference", "beartype.beartype")  # for the oracle only: torch.compile fails on hooked code

from properties.verdict import profiles  # noqa: E402 (after the hook, or what it imports would stay unchecked)

profiles.register()


@pytest.fixture(autouse=True, scope="package")
def the_same_examples() -> Iterator[None]:
    """Tests beside the properties draw alike in every run."""
    with profiles.the_same_examples():
        yield
