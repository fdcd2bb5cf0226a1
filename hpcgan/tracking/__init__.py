"""Runs shown by trackers of experiments: MLflow, Weights & Biases, or somebody's own."""
