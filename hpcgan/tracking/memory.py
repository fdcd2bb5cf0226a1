"""What a run directory remembers of its tracked runs: `tracking/NAME.json`, an entry a place."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import pydantic

from hpcgan.errors import InputError
from hpcgan.system.files import write_atomic


class Entry(pydantic.BaseModel):
    """What one tracked run has been told.

    Attributes
    ----------
    key : str
        By which the tracker finds it.
    points : int
        Of the curves, from the first on.
    mark : (int, float) or None
        Of the last of them (`Point.mark`).
    description : str
        Digest of what was said of it.
    files : dict of str to str
        Version of each file that was uploaded.
    status : str
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    key: str = pydantic.Field(pattern=r"^[0-9a-f]{8,64}$", default_factory=lambda: secrets.token_hex(8))
    points: int = pydantic.Field(0, ge=0)
    mark: tuple[int, float] | None = None
    description: str = ""
    files: dict[str, str] = {}
    status: str = ""


_ENTRIES = pydantic.TypeAdapter(dict[str, Entry])


class Memory:
    """The file of one tracker.

    Parameters
    ----------
    folder : Path
        `tracking` of the run directory; it is made when something is to be remembered.
    tracker : str
        Its name, or place `package.module:Class`.
    """

    def __init__(self, folder: Path, tracker: str) -> None:
        self.path = folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', tracker)}.json"

    def read(self) -> dict[str, Entry]:
        """Entries by place.

        Raises
        ------
        InputError
            The file is broken.
        """
        try:
            return _ENTRIES.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            problem = str(getattr(error, "strerror", None) or "it is not what hpcgan writes")
            raise InputError(f"{self.path}: cannot be read: {problem}; without it the run is tracked anew") from None

    def write(self, place: str, entry: Entry) -> None:
        """Remember an entry, beside those of other places."""
        self.path.parent.mkdir(exist_ok=True)
        write_atomic(self.path, _ENTRIES.dump_json({**self.read(), place: entry}, indent=1))
