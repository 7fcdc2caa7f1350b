"""The one error type that is shown to people as it is."""


class UserError(ValueError):
    """A mistake that its reader can mend: says what, what was got, what is wanted, and how to fix it."""
