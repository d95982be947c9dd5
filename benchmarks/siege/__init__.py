"""A siege: processes that are killed, files that are damaged, hours of scoring; what is tried, and what comes of it."""
