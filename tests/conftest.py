"""The suite's tests of itself draw as the properties do, and leave the process as they found it."""

import gc
from collections.abc import Iterator

import pytest
import torch

from properties.verdict import profiles

profiles.register()


@pytest.fixture(autouse=True)
def gradients_and_collection_stay_on() -> Iterator[None]:
    """A benchmark's process switches both off; a test that plays one goes on with other tests."""
    yield
    torch.set_grad_enabled(True)
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def the_same_examples() -> Iterator[None]:
    """Drawn once and for all, as the properties' are."""
    with profiles.the_same_examples():
        yield
