"""The digests of photos, by which mattes are told from those of other photos."""

import contextlib
import os

from common.errors import UserError
from common.files import locked, read_bytes, read_json, write_json
from common.schema import check
from photos.reading import digest, stamp, tie


def belongs(path, photo):
    """Whether a file is a whole matte of the photo of this digest, None without one."""
    if photo is None or not os.path.isfile(path):  # noqa: PTH113  False for a name that is too long
        return False
    end = tie(photo)
    with contextlib.suppress(OSError), path.open("rb") as file:  # it may be too short
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end
    return False


class Digests:
    """Digests of photos, remembered in a file by size and times of change: reading all photos at
    each start would take longer than all else that is checked there.
    """

    def __init__(self, path):
        self.path, self.new = path, {}
        self.known = self._read()

    def of(self, photo):
        """The digest of a photo; None if it cannot be read."""
        mark, known = stamp(photo), self.known.get(str(photo.absolute()), "")
        if mark and known.startswith(mark):
            return known.removeprefix(mark)
        with contextlib.suppress(UserError):
            return self.read(photo)[1]

    def read(self, photo):
        """(bytes, digest) of a photo, which is remembered; UserError if it cannot be read."""
        mark, data = stamp(photo), read_bytes(photo)
        found = digest(data)
        self.new[str(photo.absolute())] = mark + found
        return data, found

    def save(self):
        """Adds what is new to the file, unless its folder is there to be read only."""
        if not self.new:
            return
        with contextlib.suppress(OSError), locked(self.path.with_suffix(".lock"), wait=True):
            known = self._read() | self.new  # other processes may have added theirs
            write_json(self.path, dict(sorted(known.items())), sync=False)

    def _read(self):
        with contextlib.suppress(UserError):  # missing or damaged
            return check(read_json(self.path), {str: str}, self.path)
        return {}
