"""Files .npz of codes and factors that are damaged, huge, or hold what no codes are."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from pathlib import Path

import numpy as np

from dislab.benchmarks.robustness import bars
from dislab.benchmarks.robustness.cases.case import DAMAGES, DONE, FAILED, REFUSED, Case, words

ROWS = 60


def arrays(**changes) -> dict[str, np.ndarray]:
    """Return codes and factors that can be scored, with changes."""
    rng = np.random.default_rng(0)
    factors = np.stack(np.unravel_index(np.arange(ROWS), (4, 3, 5)), axis=1)
    return {"codes": rng.standard_normal((ROWS, 5)).astype(np.float32), "factors": factors} | changes


def npz(**members) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def header(shape: tuple, descr: str = "<f4", extra: str = "") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, {extra}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def zipped(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            with np.testing.suppress_warnings() as quiet:
                quiet.filter(UserWarning)
                archive.writestr(name, content)
    return buffer.getvalue()


def member(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


class Evil:
    """An object that makes a folder when it is unpickled."""

    def __reduce__(self):
        import os

        return os.mkdir, ("evil",)


def patched(content: bytes, offset_local: int, offset_central: int, value: int) -> bytes:
    """Return a zip file with a field of 2 bytes changed in every header."""
    changed = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", offset_local), (b"PK\x01\x02", offset_central)):
        start = changed.find(mark)
        while start >= 0:
            struct.pack_into("<H", changed, start + offset, value)
            start = changed.find(mark, start + 4)
    return bytes(changed)


_codes, _factors = arrays().values()
_object = np.empty(2, object)
_object[:] = [Evil(), Evil()]
_right = npz(**arrays())
_two = [("codes.npy", member(_codes)), ("factors.npy", member(_factors))]
FILES = {
    "encrypted": lambda: patched(_right, 6, 8, 1),
    "method 99": lambda: patched(_right, 8, 10, 99),
    "method 12 (bzip2) of stored bytes": lambda: patched(_right, 8, 10, 12),
    "method 8 (deflate) of stored bytes": lambda: patched(_right, 8, 10, 8),
    "method 14 (lzma) of stored bytes": lambda: patched(_right, 8, 10, 14),
    "a header of 373 GB": lambda: zipped([("codes.npy", header((10**10, 10))), _two[1]]),
    "a header of 6 GB": lambda: zipped([("codes.npy", header((15 * 10**7, 10))), _two[1]]),
    "a header of 2^63 rows": lambda: zipped([("codes.npy", header((2**63, 10))), _two[1]]),
    "a header of 2^200 rows": lambda: zipped([("codes.npy", header((2**200, 10))), _two[1]]),
    "a header of -1 rows": lambda: zipped([("codes.npy", header((-1, 10))), _two[1]]),
    "a header whose shape is a text": lambda: zipped([("codes.npy", header("ab")), _two[1]]),
    "a header of an unknown type": lambda: zipped([("codes.npy", header((60, 5), "<z9")), _two[1]]),
    "a header of a type of 10^9 bytes": lambda: zipped(
        [("codes.npy", header((60,), "|V1000000000")), _two[1]]
    ),
    "a header that is code": lambda: zipped(
        [("codes.npy", header((60, 5)).replace(b"False", b"open('evil', 'w')")), _two[1]]
    ),
    "a header of brackets": lambda: zipped(
        [("codes.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 9000) + b"(" * 8999 + b"\n"), _two[1]]
    ),
    "a header of 4 GB": lambda: zipped([("codes.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"), _two[1]]),
    "a header of version 9": lambda: zipped([("codes.npy", b"\x93NUMPY\x09\x00\x00\x00"), _two[1]]),
    "not an array": lambda: zipped([("codes.npy", b"codes"), _two[1]]),
    "an empty member": lambda: zipped([("codes.npy", b""), _two[1]]),
    "a member cut off": lambda: zipped([("codes.npy", member(_codes)[:-7]), _two[1]]),
    "members without .npy": lambda: zipped([("codes", b"codes"), ("factors", b"factors")]),
    "a member twice": lambda: zipped([*_two, ("codes.npy", member(_codes + 1))]),
    "a member in two ways": lambda: zipped([*_two, ("codes", b"text")]),
    "members of folders": lambda: zipped([("../codes.npy", _two[0][1]), ("/factors.npy", _two[1][1])]),
    "names with a line end": lambda: zipped([("co\ndes.npy", _two[0][1]), _two[1]]),
    "no member": lambda: zipped([]),
    "1,000 members": lambda: zipped([(f"a{n}.npy", member(np.zeros(1))) for n in range(1000)]),
    "codes alone": lambda: npz(codes=_codes),
    "factors alone": lambda: npz(factors=_factors),
    "a .npy file": lambda: member(_codes),
    "a pickle": lambda: pickle.dumps({"codes": Evil()}),
    "objects that are unpickled": lambda: npz(**arrays(codes=_object)),
    "objects as factors": lambda: npz(**arrays(factors=_object)),
    "objects as logvar": lambda: npz(**arrays(logvar=_object)),
    "text": lambda: b"no arrays",
    "nothing": lambda: b"",
    "only a zip's end": lambda: b"PK\x05\x06" + b"\0" * 18,
}
ARRAYS = {
    "NaN": arrays(codes=np.where(_codes > 1, np.nan, _codes)),
    "inf": arrays(codes=np.where(_codes > 1, np.inf, _codes)),
    "all NaN": arrays(codes=np.full_like(_codes, np.nan)),
    "codes of 10^300": arrays(codes=_codes.astype(float) * 1e300),
    "codes [N]": arrays(codes=_codes[:, 0]),
    "codes [N, 1, D]": arrays(codes=_codes[:, None]),
    "codes []": arrays(codes=np.float32(1)),
    "no codes": arrays(codes=_codes[:, :0]),
    "no rows": arrays(codes=_codes[:0], factors=_factors[:0]),
    "one row": arrays(codes=_codes[:1], factors=_factors[:1]),
    "fewer factors": arrays(factors=_factors[:-1]),
    "complex codes": arrays(codes=_codes.astype(complex)),
    "text as codes": arrays(codes=_codes.astype(str)),
    "bytes as codes": arrays(codes=_codes.astype("S8")),
    "times as codes": arrays(codes=_factors.astype("datetime64[s]")),
    "records as codes": arrays(codes=np.zeros(ROWS, [("a", "f4"), ("b", "f4")])),
    "no factors": arrays(factors=_factors[:, :0]),
    "factors [N, K, 1]": arrays(factors=_factors[..., None]),
    "negative factors": arrays(factors=_factors - 3),
    "factors of 10^18": arrays(factors=_factors * 10**18),
    "factors of uint64": arrays(factors=_factors.astype(np.uint64) + np.uint64(2**63)),
    "fractions as factors": arrays(factors=_factors + 0.5),
    "NaN as factors": arrays(factors=_factors * np.nan),
    "text as factors": arrays(factors=_factors.astype(str)),
    "complex factors": arrays(factors=_factors.astype(complex)),
    "constant factors": arrays(factors=np.zeros_like(_factors)),
    "logvar of another shape": arrays(logvar=_codes[:, :2]),
    "logvar of NaN": arrays(logvar=_codes * np.nan),
    "logvar of 10^300": arrays(logvar=_codes.astype(float) * 1e300),
    "text as logvar": arrays(logvar=_codes.astype(str)),
}
METRICS = ("mig", "sap", "dci", "irs", "modularity", "factorvae_score", "active_units", "default")


def codes(draw: random.Random, number: int) -> Case:
    """A .npz file of codes that is wrong."""
    expect = (REFUSED,)
    names = [*FILES, *ARRAYS]
    if number < len(names):
        about = names[number]
        make = FILES.get(about) or (lambda: npz(**ARRAYS[about]))
        if about in ("codes of 10^300", "constant factors", "one row", "logvar of 10^300", "1,000 members"):
            expect = (DONE, FAILED, REFUSED)
        if about in ("times as codes", "members of folders", "a member in two ways"):
            expect = (DONE, REFUSED)
    else:
        how = draw.choice(DAMAGES)
        compressed = draw.random() < 0.5
        members = [(f"{name}.npy", member(array)) for name, array in arrays().items()]
        whole = zipped(members, zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
        content = how(whole, draw)
        make, about = (lambda: content), f"{words(how)}{', compressed' * compressed}"
        expect = (DONE, REFUSED)  # bytes between members, and times, are nobody's
    metric = METRICS[number % len(METRICS)] if number >= len(names) or about in ARRAYS else "mig"
    return Case(
        ["evaluate", "codes.npz", "--metrics", metric, *bars.PLUGINS],
        expect,
        lambda folder: (folder / "codes.npz").write_bytes(make()) and None,
        f"{about}; {metric}",
        check=same_scores if number >= len(names) else None,
    )


def same_scores(folder: Path, code: int, printed: str, messages: str) -> str:
    """A file whose bytes were changed is refused, or it gives the scores that the whole file gives."""
    if code != DONE:
        return ""
    (folder / "whole.npz").write_bytes(npz(**arrays()))
    with np.load(folder / "codes.npz") as changed:
        same = all(np.array_equal(changed[name], array) for name, array in arrays().items())
    return "" if same else "arrays that differ from those written were scored"
