"""Propose candidates by Bayesian optimization: surrogates, acquisition function, initial design and transfer."""
