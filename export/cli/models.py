"""`diarport models`."""


def command() -> None:
    """To be written."""
