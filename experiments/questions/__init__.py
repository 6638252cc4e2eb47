"""The questions: one file each, found by walking this folder."""
