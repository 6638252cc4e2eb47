"""Statistics of entries: what is measured on data, with which confidence."""
