"""The contract card: what an implementation is, read off answers that are exact.

No claim is judged here, and nothing is drawn at random but the numbers whose bits are compared.
"""
