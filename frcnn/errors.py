"""The error that is shown to a person instead of a stack trace."""


class UserError(Exception):
    """A mistake in the input: what came, what was expected, where, and what to do. Printed without a stack trace."""
