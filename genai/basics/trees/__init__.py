"""Decision trees, and the two ways of adding many of them up: random forests and gradient boosting."""
