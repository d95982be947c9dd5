"""Detectors and what they scored in; what people look at out: pictures, pages and the files of a run."""
