"""Campaigns of faults against a training: what is promised in docs/reliability.md, put to the test."""
