"""The one exception that reaches a user as a single line."""


class UserError(Exception):
    """Something the user can mend: the message is one line that names the file and row, or the flag, and the way out.

    `distill.cli.run` prints it without a traceback and exits with status 2.
    """


class NotThere(UserError):
    """Of something that does not exist, so that a caller who can do without it need not swallow one that is damaged."""
