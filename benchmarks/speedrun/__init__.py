"""Speedrun: the seconds from a folder of normal images to a detector as good as the paper's."""
