"""The error type whose message is shown to users as it is."""


class UserError(ValueError):
    """Something the user can fix. The message says what happened, what was given, what is needed, and how to fix it."""
