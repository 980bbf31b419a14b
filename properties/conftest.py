"""Before the first property is imported: have the shapes of the oracle checked on every call, and our Hypothesis profiles known."""

from jaxtyping import install_import_hook

install_import_hook("reference", "beartype.beartype")  # for the oracle only: torch.compile fails on hooked code

from properties.verdict import profiles  # noqa: E402 (after the hook, or what it imports would stay unchecked)

profiles.register()
