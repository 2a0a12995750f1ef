"""Base of all value types."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Literal[1] = 1

Sha256 = str


class Value(BaseModel):
    """Base of all value types: frozen, closed, finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> str:
        """Canonical JSON text: sorted keys, two spaces, one trailing newline."""
        import json

        data = self.model_dump(mode="json")
        return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"
