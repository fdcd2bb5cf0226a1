"""Scaling studies: measure a training's steps on several numbers of ranks, report, extrapolate."""
