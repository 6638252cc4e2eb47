"""What the methods rest on: splits, masks, costs, sums, and code that others published."""
