"""The paper's tables: a network trained and measured a row and seed, docs/accuracy.md from all of them."""
