"""A profile by its name or its file: the shipped ones, and what `heron profile run` wrote.

Rule: a name that ends in `.json` is a file; any other is one of `fleet.profile.PROFILES`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fleet.performance import PerformanceProfile
from fleet.profile import PROFILES
from fleet.profiles.document import (
    HOW_TO_MEASURE,
    MAX_DOCUMENT_BYTES,
    ProfileDocument,
    ProfileDocumentError,
    parse_document,
)
from fleet.profiles.measured import fit_profile
from fleet.profiles.measured_points import points_of
from fleet.profiles.measured_watts import NOTHING_ASSUMED, AssumedWatts, check_watts

FILE_SUFFIX = ".json"


def is_file(reference: str) -> bool:
    """Whether this names a file, and not a shipped profile."""
    return reference.endswith(FILE_SUFFIX)


def placed(reference: str, directory: Path) -> str:
    """A file's name relative to `directory`, `~` put in; a shipped profile's name as it is.

    Raises:
        ProfileDocumentError: `~name` is nobody here.
    """
    if not is_file(reference):
        return reference
    try:
        return str(directory / Path(reference).expanduser())
    except RuntimeError:
        raise ProfileDocumentError(
            f"{reference}: there is no such home directory: {HOW_TO_MEASURE}"
        ) from None


def find_profile(reference: str, assumed: AssumedWatts = NOTHING_ASSUMED) -> PerformanceProfile:
    """The profile of this name, or of this file; `assumed` for the watts that a file does not have.

    Raises:
        ProfileDocumentError: no such name, or the file cannot be used; the message says why and what to do.
    """
    if is_file(reference):
        document = read_document(Path(reference))
        profile = fit_profile(document, assumed, name=reference)
        check_watts(
            points_of(document, reference),
            assumed,
            idle_watts=document.engine.idle_watts,
            name=reference,
        )
        return profile
    if reference not in PROFILES:
        raise ProfileDocumentError(
            f"{reference!r} is no profile: known are {', '.join(sorted(PROFILES))}, and files that "
            f"`heron profile run` wrote, whose names end in {FILE_SUFFIX}"
        )
    return PROFILES[reference]


@dataclass(slots=True, kw_only=True)
class Profiles:
    """Finds each profile once."""

    assumed: AssumedWatts = NOTHING_ASSUMED
    _found: dict[str, PerformanceProfile] = field(default_factory=dict)

    def find(self, reference: str) -> PerformanceProfile:
        """See `find_profile`."""
        if reference not in self._found:
            self._found[reference] = find_profile(reference, self.assumed)
        return self._found[reference]


def read_document(path: Path) -> ProfileDocument:
    """The document in a file.

    Raises:
        ProfileDocumentError: it is not there, cannot be read, is too large, or is no such document.
    """
    return parse_document(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """What is in it.

    Raises:
        ProfileDocumentError: it is not there, cannot be read, or is too large.
    """
    try:
        is_there = path.is_file()  # a pipe or a device would never end
        data = _head(path) if is_there else b""
    except OSError as error:
        raise ProfileDocumentError(f"{path}: cannot be read: {error.strerror}") from None
    if not is_there:
        raise ProfileDocumentError(f"{path}: is not there, or is no file: {HOW_TO_MEASURE}")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ProfileDocumentError(f"{path}: more than {MAX_DOCUMENT_BYTES} bytes: {HOW_TO_MEASURE}")
    return data


def _head(path: Path) -> bytes:
    """One byte more than may be there."""
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)
