"""Damaged and odd data files: one right line, whatever the bytes are."""

import gzip
import io
import os
import struct
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
from conftest import one_line
from PIL import Image
from scipy.io import savemat

from dislab.cli import main
from dislab.data.folder import read_image
from dislab.data.matlab import read_bytes_array
from dislab.data.npz import read_arrays
from dislab.data.space import FactorSpace
from dislab.datasets import cars3d, dsprites, mnist, mpi3d, shapes3d, smallnorb
from dislab.errors import DislabError

RNG = np.random.default_rng(0)
CODES = {"codes": RNG.normal(size=(50, 3)), "factors": RNG.integers(0, 3, (50, 2))}


def npz(compressed: bool = False, **arrays) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def mat(compressed: bool = False, **arrays) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays, do_compression=compressed)
    return file.getvalue()


# Arrays of codes


def header_of(shape: str, kind: str = "<f8") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.encode()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            opened.writestr(f"{name}.npy", content)
    return file.getvalue()


def with_bytes(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def wrong_codes() -> dict[str, tuple[bytes, str]]:
    """The bytes of a file, and what the message must say, for each kind of damage."""
    good, packed = npz(**CODES), npz(compressed=True, **CODES)
    directory = good.find(b"PK\x01\x02")
    huge = archive(codes=header_of("(233125000, 200)") + bytes(100))
    lying = archive(codes=header_of("(4000000000, 12)") + bytes(100))
    size = struct.pack("<I", 2**32 - 2)  # in the archive's directory, of the unpacked array
    with_twice = io.BytesIO(good)
    with zipfile.ZipFile(with_twice, "a") as opened, pytest.warns(UserWarning, match="Duplicate name"):
        opened.writestr("codes.npy", header_of("(1, 1)") + bytes(8))
    pixel = good.find(CODES["codes"].tobytes()) + 77
    middle = packed.find(b"PK\x01\x02") // 3
    return {
        "encrypted": (with_bytes(good, directory + 8, b"\x01"), "it is encrypted"),
        "method 99": (with_bytes(good, directory + 10, b"\x63"), "its compression, method 99, is none that"),
        "373 GB": (huge, "is float64 [233125000, 200], but has 100 bytes, expected 373000000000"),
        "false size": (with_bytes(lying, lying.find(b"PK\x01\x02") + 24, size), "but has 4294967166 bytes"),
        "negative": (archive(codes=header_of("(-2, -3)") + bytes(48)), "is float64 [-2, -3], but has 48 byt"),
        "one bit": (with_bytes(good, pixel, bytes([good[pixel] ^ 16])), "Bad CRC-32"),
        "packed bits": (with_bytes(packed, middle, bytes(30)), "is not a whole .npz file"),
        "cut": (good[:-300], "is not a whole .npz file"),
        "objects": (npz(codes=np.array([{}, print], object)), "array 'codes' holds Python objects"),
        "header": (archive(codes=header_of("((((((1),)")), "is not a whole .npz file"),
        "version": (archive(codes=with_bytes(header_of("(1,)"), 6, b"\x07") + bytes(8)), "version 7.0"),
        "twice": (with_twice.getvalue(), "has more than one array codes: only one can be meant"),
        "odd names": (npz(**{"new\nline": 0, "x" * 200: 1}), r"it has new\nline, …"),
    }


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", wrong_codes())
def test_wrong_files_of_codes_are_refused_in_one_line(case, tmp_path, capsys):
    content, says = wrong_codes()[case]
    if b"factors" not in content and case != "odd names":
        file = io.BytesIO(content)
        with zipfile.ZipFile(file, "a") as opened:
            opened.writestr("factors.npy", header_of("(50, 1)") + bytes(400))
        content = file.getvalue()
    (tmp_path / "codes.npz").write_bytes(content)
    assert main(["evaluate", str(tmp_path / "codes.npz"), "--metrics", "mig"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dislab: '{tmp_path / 'codes.npz'}'")
    assert says in line


def test_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "codes.npz")
    assert main(["evaluate", str(tmp_path / "codes.npz")]) == 2
    assert "it is a pipe" in capsys.readouterr().err


def test_arrays_of_any_order_type_and_shape_are_read(tmp_path):
    arrays = {
        "codes": np.asfortranarray(RNG.normal(size=(5, 3)).astype(">f4")),
        "factors": np.array(3),
        "logvar": np.zeros((0, 4)),
    }
    for compressed in (False, True):
        (tmp_path / "a.npz").write_bytes(npz(compressed, **arrays))
        found = read_arrays(tmp_path / "a.npz", ["codes", "factors"], ["logvar", "other"])
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


# What an HDF5 file may hold in place of the images


def hdf5_group(file):
    file.create_group("images")


def hdf5_type(file):
    file["images"] = np.dtype("u1")


def hdf5_dangling(file):
    file["images"] = h5py.SoftLink("/nowhere")


def hdf5_loop(file):
    file["images"] = h5py.SoftLink("/images")


def hdf5_external(file):
    file["images"] = h5py.ExternalLink("other.h5", "/images")


def hdf5_virtual(file):
    layout = h5py.VirtualLayout((96, 64, 64, 3), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "images", (96, 64, 64, 3))
    file.create_virtual_dataset("images", layout)


def hdf5_elsewhere(file):
    pixels = [("other.bin", 0, 96 * 64 * 64 * 3)]
    file.create_dataset("images", (96, 64, 64, 3), "u1", external=pixels)


CASES = [v for name, v in globals().items() if name.startswith("hdf5_")]


@pytest.mark.parametrize("write", CASES)
def test_what_is_no_array_of_the_hdf5_file_is_refused(write, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shapes3d, "SPACE", FactorSpace(shapes3d.SPACE.names, (2, 2, 2, 2, 2, 3)))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["images"] = np.zeros((96, 64, 64, 3), np.uint8)
    (tmp_path / "other.bin").write_bytes(bytes(96 * 64 * 64 * 3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    with pytest.raises(DislabError, match="'images' is no array in this file") as error:
        shapes3d.read_official(tmp_path / "a.h5")
    assert f"'{tmp_path / 'a.h5'}'" in one_line(error)


# An archive with a car twice


def test_a_car_twice_is_refused(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(cars3d, "SPACE", FactorSpace(cars3d.SPACE.names, (2, 3, 2)))
    data = mat(im=np.ones((128, 128, 3, 3, 2), np.uint8))
    path = tmp_path / "cars.tar.gz"
    for names in (("car_001_mesh.mat",) * 2, ("a/car_001_mesh.mat", "b/car_001_mesh.mat")):
        with tarfile.open(path, "w:gz") as opened:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                opened.addfile(member, io.BytesIO(data))
        with pytest.raises(DislabError, match=r"holds car_001_mesh\.mat more than once"):
            cars3d.read_official(path)


# Generated damage


def images(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8) // 64


def hdf5(**options) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened.create_dataset("images", data=images(96, 64, 64, 3), **options)
    return file.getvalue()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(images(20, 30, 3)).save(file, kind)
    return file.getvalue()


def tar_of_cars() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as opened:
        for number in (1, 2):
            data = mat(True, im=np.full((128, 128, 3, 3, 2), number, np.uint8))
            member = tarfile.TarInfo(f"car_00{number}_mesh.mat")
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    return file.getvalue()


IDX = struct.pack(">4B3I", 0, 0, 8, 3, 20, 28, 28) + images(20, 28, 28).tobytes()
NORB = struct.pack("<6i", 0x1E3D4C55, 4, 3, 2, 20, 20) + images(3, 2, 20, 20).tobytes()
FACES = {"other": {"a": [1, 2]}, "faces": images(64, 40)}
READERS = {
    "codes": (read_arrays, [("codes", "factors")], [npz(**CODES), npz(compressed=True, **CODES)]),
    "dsprites": (dsprites.read_official, [], [npz(c, imgs=images(48, 64, 64) // 2) for c in (False, True)]),
    "mpi3d": (mpi3d.read_official, [8], [npz(c, images=images(8, 64, 64, 3)) for c in (False, True)]),
    "cars3d": (cars3d.read_official, [], [tar_of_cars()]),
    "mnist": (mnist.read_idx, [(20, 28, 28)], [IDX, gzip.compress(IDX)]),
    "smallnorb": (smallnorb.read_all, ["uint8", (2, 20, 20), 3], [NORB, gzip.compress(NORB)]),
    "shapes3d": (shapes3d.read_official, [], [hdf5(), hdf5(chunks=(8, 64, 64, 3), compression="gzip")]),
    "matlab": (
        lambda path: read_bytes_array(path.read_bytes(), "faces", (64, 40), str(path)),
        [],
        [mat(c, **FACES) for c in (False, True)],
    ),
    "image": (read_image, [16, "RGB"], [picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP")]),
}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip a bit, cut, zero or insert some bytes; half of the time near the beginning or the end."""
    near = min(len(data), 400)
    place = int(rng.choice([rng.integers(len(data)), rng.integers(near), len(data) - 1 - rng.integers(near)]))
    length = int(rng.integers(1, 100))
    return [
        with_bytes(data, place, bytes([data[place] ^ 1 << int(rng.integers(8))])),
        data[:place],
        with_bytes(data, place, bytes(length))[: len(data)],
        data[:place] + rng.bytes(length) + data[place:],
    ][rng.integers(4)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reader", READERS)
def test_damage_of_any_kind_is_one_line(reader, tmp_path, cache, monkeypatch):
    for module, sizes in (
        (dsprites, (3, 2, 2, 2, 2)),
        (mpi3d, (2, 1, 1, 1, 1, 2, 2)),
        (cars3d, (2, 3, 2)),
        (shapes3d, (2, 2, 2, 2, 2, 3)),
    ):
        monkeypatch.setattr(module, "SPACE", FactorSpace(module.SPACE.names, sizes))
    read, arguments, whole = READERS[reader]
    rng, refused = np.random.default_rng(1), 0
    path = tmp_path / "file"
    for number in range(120):
        good = whole[number % len(whole)]
        path.write_bytes(good if number < len(whole) else damaged(good, rng))
        os.utime(path, (number, number))  # a file of its own in the cache
        try:
            read(path, *arguments)
        except DislabError as error:
            assert number >= len(whole), "it is whole"
            assert "\n" not in str(error) and len(str(error)) < 600
            refused += 1
    assert refused > 30
