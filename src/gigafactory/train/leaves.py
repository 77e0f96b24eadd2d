"""The leaves of a pytree by the names that checkpoints and snapshots know them by."""

from __future__ import annotations

from typing import Any

import jax


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves of a pytree by path, in tree order: `{"opt": (State(mu=..),)}` gives "opt/0/mu". None is no leaf."""
    names: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = "/".join(_key_name(key) for key in keys)
        if name in names:
            raise ValueError(f"two leaves of the tree have the path {name!r}")
        names[name] = leaf
    return names


def _key_name(key: Any) -> str:
    """`key`, `idx` or `name` of JAX's dictionary, sequence and attribute keys."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"a pytree key of type {type(key).__name__} has no name")
