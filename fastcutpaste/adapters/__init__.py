"""Adapters: one page per host framework."""
