"""From a checked problem to a Result: offers, choice, words, run, and the plan run again."""
