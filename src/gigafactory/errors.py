"""The one exception that speaks to the user."""


class UserError(Exception):
    """Something the user can put right: printed as one line, exit code 2, never a traceback.

    The message names what is wrong, what is allowed and what was given,
    e.g. ``factory.toml: cluster.chips[0].count: must be at least 1, got -5``.
    """
