"""What must be in place before the first property is imported: the oracle's shapes are checked on every call while properties run."""

from jaxtyping import install_import_hook

install_import_hook("reference", "beartype.beartype")  # for the oracle only: torch.compile fails on hooked code

from properties import profiles  # noqa: E402 (after the hook, or what it imports would stay unchecked)

profiles.register()
