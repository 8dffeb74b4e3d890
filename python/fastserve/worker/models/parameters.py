"""Parameters of a model, read with their names in the errors."""

from __future__ import annotations

from collections.abc import Collection

from fastserve import errors

# Read by the server itself (csrc/backend/worker_backend.h); they reach the model too.
OF_THE_SERVER = frozenset(
    {"initialize_timeout_s", "execute_timeout_s", "finalize_timeout_s", "worker_threads"}
)


def _wrong(name: str, got: str, want: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f'parameters["{name}"]: got "{got}", want {want}')


class Parameters:
    """Of one model. `done` refuses those that nobody asked for."""

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given
        self._known: set[str] = set(OF_THE_SERVER)

    def text(self, name: str, default: str, want: Collection[str]) -> str:
        self._known.add(name)
        value = self._given.get(name, default).lower()
        if value not in want:
            raise _wrong(name, self._given[name], "one of " + ", ".join(want))
        return value

    def any_text(self, name: str, default: str) -> str:
        """Lower case; the caller says what it wants."""
        self._known.add(name)
        return self._given.get(name, default).lower()

    def number(self, name: str, default: int) -> int:
        """At least 0."""
        self._known.add(name)
        value = self._given.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit()):
            raise _wrong(name, value, "a whole number, at least 0")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        word = self.text(name, str(default).lower(), ("true", "false", "1", "0"))
        return word in {"true", "1"}

    def prefixed(self, prefix: str) -> dict[str, str]:
        found = {name: value for name, value in self._given.items() if name.startswith(prefix)}
        self._known.update(found)
        return found

    def done(self) -> None:
        if unknown := sorted(set(self._given) - self._known):
            known = ", ".join(sorted(self._known))
            raise errors.InvalidArgument(f'parameters["{unknown[0]}"]: is not known, there are {known}')
