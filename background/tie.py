"""Which photo a matte belongs to: the digest of the photo's bytes stands in the matte's PNG.

So the two are one file, written whole or not at all; a photo that was replaced, or one of equal
name from another data set, is told from the one that the matte was made of.
"""

import contextlib
import hashlib
import os
import struct
import zlib

from common.errors import UserError
from common.files import locked, read_bytes, read_json, write_json

END = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"  # of each PNG


def digest(data):
    """SHA-256 of the bytes of a photo, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def tied(png, photo):
    """A PNG's bytes with the digest `photo` in a text chunk (PNG 11.3.3.2) at its end."""
    chunk = b"tEXtphoto sha256\0" + photo.encode()
    crc = struct.pack(">I", zlib.crc32(chunk))
    return png.removesuffix(END) + struct.pack(">I", len(chunk) - 4) + chunk + crc + END


def belongs(path, photo):
    """Whether a file is a whole matte of the photo of this digest; only its end is read.

    A photo that cannot be read has None, and no matte.
    """
    if photo is None or not path.is_file():  # a pipe would never end
        return False
    end = tied(END, photo)
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # also of a file that is too short
        return False


class Digests:
    """Digests of photos, remembered in a file by size and times of change.

    Reading all photos at each start would take longer than all else that is checked there. The
    time of change of the inode tells a photo whose other time was set back, as `cp -p` does.
    """

    def __init__(self, path):
        self.path, self.new = path, {}
        self.known = self._read()

    def of(self, photo):
        """The digest of a photo; None if it cannot be read."""
        try:
            stamp, known = _stamp(photo), self.known.get(str(photo.absolute()))
            if stamp and isinstance(known, str) and known.startswith(stamp):
                return known.removeprefix(stamp)
            return self.read(photo)[1]
        except UserError:
            return None

    def read(self, photo):
        """(bytes, digest) of a photo, which is remembered; UserError if it cannot be read."""
        stamp, data = _stamp(photo), read_bytes(photo)
        found = digest(data)
        self.new[str(photo.absolute())] = stamp + found
        return data, found

    def save(self):
        """Adds what is new to the file, unless its folder is there to be read only."""
        if not self.new:
            return
        with contextlib.suppress(OSError), locked(self.path.with_suffix(".lock"), wait=True):
            known = self._read() | self.new  # other processes may have added theirs
            write_json(self.path, dict(sorted(known.items())), sync=False)

    def _read(self):
        try:
            known = read_json(self.path)
        except UserError:  # missing or damaged
            known = {}
        return known if isinstance(known, dict) else {}


def _stamp(photo):
    try:
        stat = photo.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} "
