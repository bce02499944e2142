"""Collapse metrics; they act on arrays, so on any network's features too."""
