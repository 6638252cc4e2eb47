"""One polynomial of exp on the proved range of the logits."""
