"""Neural networks: the multilayer perceptron and the transformer."""
