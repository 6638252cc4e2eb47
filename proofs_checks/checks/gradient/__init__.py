"""The gradient of attention, and the function of the lower bound on its cost."""
