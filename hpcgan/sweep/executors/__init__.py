"""Who runs the trials of a study: this machine, Slurm, or IPython engines."""
