"""Damages bytes at random: flips, cuts, repeats, splices, and what a text should not hold."""

TOKENS = (
    b"", b"nan", b"NaN", b"inf", b"-1", b"1e999", b"99999999999999999999", b"0", b"1.5", b"null",
    b"[]", b"{}", b'"', b"'", b",", b"\n", b"\r", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"..",
    b"/", b"../../x", b"\\", b"true", b"[" * 2000, b"x" * 70_000, "\u0663".encode(), b"=cmd()",
    "\ud83d\ude00".encode("utf-8", "surrogatepass"), b"%s",
)  # fmt: skip


def mutate(chance, data, others):
    """Bytes made from `data` by one to four changes; chance: a random.Random; others: a list of
    bytes to splice with."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        CHANGES[chance.randrange(len(CHANGES))](chance, data, others)
    return bytes(data)


def _span(chance, data):
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + int(2 ** chance.uniform(0, 9)))


def _flip(chance, data, others):
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(chance, data, others):
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 1, 127, 128, 255))


def _early(chance, data, others):
    """Where headers are."""
    if data:
        data[chance.randrange(min(len(data), 64))] = chance.randrange(256)


def _cut(chance, data, others):
    del data[chance.randrange(len(data) + 1) :]


def _remove(chance, data, others):
    start, stop = _span(chance, data)
    del data[start:stop]


def _repeat(chance, data, others):
    start, stop = _span(chance, data)
    data[start:start] = data[start:stop] * chance.choice((1, 1, 2, 50))


def _noise(chance, data, others):
    start, stop = _span(chance, data)
    data[start:stop] = chance.randbytes(stop - start)


def _token(chance, data, others):
    start, stop = _span(chance, data)
    stop = min(stop, start + 8)
    data[start:stop] = chance.choice(TOKENS)


def _number(chance, data, others):
    """Puts a token in place of a whole cell or value of a text."""
    ends = [i for i, byte in enumerate(data[:20_000]) if byte in b',:\n]}"']
    if len(ends) > 1:
        place = chance.randrange(len(ends) - 1)
        data[ends[place] + 1 : ends[place + 1]] = chance.choice(TOKENS)


def _splice(chance, data, others):
    other = chance.choice(others)
    start, stop = chance.randrange(len(data) + 1), chance.randrange(len(other) + 1)
    data[start:] = other[stop:]


def _lines(chance, data, others):
    """Repeats, removes or swaps lines."""
    rows = bytes(data).split(b"\n")
    a, b = chance.randrange(len(rows)), chance.randrange(len(rows))
    kind = chance.randrange(3)
    if kind == 0:
        rows.insert(b, rows[a])
    elif kind == 1:
        del rows[a]
    else:
        rows[a], rows[b] = rows[b], rows[a]
    data[:] = b"\n".join(rows)


CHANGES = (_flip, _set, _early, _cut, _remove, _repeat, _noise, _token, _number, _splice, _lines)
