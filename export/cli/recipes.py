"""`diarport recipes`."""


def command() -> None:
    """To be written."""
