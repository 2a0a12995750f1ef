"""How long artifacts take: the timing protocol, in one process or several, and its statistics."""
