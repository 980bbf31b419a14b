"""Attention of real libraries, an adapter each: at most forty lines, with the options that the library itself has.

An adapter is a class as a user writes it, and each file stands alone: it runs in a process of its own, which imports none of our
packages. A library is imported when its adapter is made, not before. What a library does not take is `NotImplementedError`.
"""
