"""What the registry says about a prompt, and about one it does not have."""

from __future__ import annotations

from dataclasses import dataclass

from chainops.core.errors import ChainopsError


class PromptNotFound(ChainopsError, LookupError):
    """A prompt, a version or an alias that is not there.

    Args:
        name: The prompt's name, or its file.
        asked: The version, the alias, or None when the prompt as a whole is missing.
        place: The registry, or the folder, that was looked in.
        versions: Versions that exist.
        aliases: Aliases that exist, each with its version.
    """

    def __init__(
        self,
        name: str,
        asked: int | str | None,
        place: str,
        *,
        versions: tuple[int, ...] = (),
        aliases: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.name, self.asked, self.place, self.versions, self.aliases = name, asked, place, versions, aliases
        if not versions:
            wanted = "" if asked is None else f" ({_called(asked)})"
            found = f"no prompt {name!r}{wanted}"
            move = "push it first: chainops prompts push FILE.md"
        else:
            named = ", ".join(f"{alias} → {version}" for alias, version in aliases) or "none"
            found = f"prompt {name!r} has no {_called(asked)}"
            move = f"there are versions {_span(versions)} and aliases: {named}; ask for one of these or promote one"
        super().__init__(f"{place}: {found}; {move}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptVersion:
    """One line of a prompt's history."""

    version: int
    aliases: tuple[str, ...]
    digest: str | None
    """As `Prompt.digest`; None for a version chainops cannot use, such as a Jinja template."""
    message: str | None
    created_at: float
    """Seconds since the epoch."""


def _called(asked: int | str | None) -> str:
    return f"version {asked}" if isinstance(asked, int) else f"alias {asked!r}"


def _span(versions: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, versions[-8:]))
    return shown if len(versions) <= 8 else f"…, {shown}"
