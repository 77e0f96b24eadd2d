"""Gigafactory: one factory file describes a compute factory; plan it, simulate it, run it, serve what it makes."""

__version__ = "0.1.0"
