"""`diarport check`."""


def command() -> None:
    """To be written."""
