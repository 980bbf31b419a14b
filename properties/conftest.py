"""Before the first property is imported: have the shapes of the oracle checked, and our Hypothesis profiles known."""

from collections.abc import Iterator

import pytest

from properties.verdict import profiles

profiles.register()


def pytest_configure(config: pytest.Config) -> None:
    """Of the oracle only: torch.compile fails on hooked code. Not where an implementation is named: its run starts sooner."""
    if not config.getoption("implementation", None):
        from jaxtyping import install_import_hook

        install_import_hook("reference", "beartype.beartype")


@pytest.fixture(autouse=True, scope="package")
def the_same_examples() -> Iterator[None]:
    """Tests beside the properties draw alike in every run."""
    with profiles.the_same_examples():
        yield
