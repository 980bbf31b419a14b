"""Localisation: the first step of a whole model whose own error leaves its budget."""
