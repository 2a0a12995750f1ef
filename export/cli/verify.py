"""`diarport verify`."""


def command() -> None:
    """To be written."""
