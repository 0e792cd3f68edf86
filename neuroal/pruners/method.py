"""What all configurable methods have in common."""

from __future__ import annotations

from typing import ClassVar


class Method:
    """A configurable method; subclasses are frozen dataclasses whose fields are its parameters.

    Attributes:
        group: the group of the command line that chooses a method of this kind.
        file_parameters: parameters that name files. Their content, not their name, is part of a
            run's identity.
        version: number of the results' version, part of a run's identity. Raise it when a change of
            the code changes results.
    """

    group: ClassVar[str] = ""
    file_parameters: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """Name of the method in messages."""
        return type(self).__name__.lower()

    @property
    def setting(self) -> str:
        """Beginning of messages about the method, as in ``pruner=wanda``."""
        return f"{self.group}={self.name}"
