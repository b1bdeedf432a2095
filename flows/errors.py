"""A mistake that the user can mend."""


class UserError(Exception):
    """Shown as one line, exit status 2, no traceback."""
