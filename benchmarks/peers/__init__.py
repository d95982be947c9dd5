"""Detectors of others, trained or fitted on the same machine and images, beside ours."""
