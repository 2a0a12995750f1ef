"""`diarport build`."""


def command() -> None:
    """To be written."""
