"""Predicts step time, memory and the best layout of a training run. Never imports JAX."""
