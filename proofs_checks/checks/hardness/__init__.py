"""Hardness of attention at large entries: the gadget, built and decided."""
