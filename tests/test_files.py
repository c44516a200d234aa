"""Other libraries read our .npy and safetensors files, and we read theirs; files are written atomically."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from seedbed._files.errors import FileFormatError
from seedbed._files.npy import create_npy
from seedbed._files.safetensors import create_safetensors, read_safetensors
from seedbed._files.writing import create_file

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64, np.complex64]


def bits(array):
    return np.ascontiguousarray(array).reshape(-1).view(f"u{array.itemsize}")


def sample_array(dtype, shape):
    return np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.complex64])
@pytest.mark.parametrize("shape", [(3, 5), (), (7,), (0, 4), (2, 3, 4, 5)])
def test_npy_is_read_by_numpy(tmp_path, dtype, shape):
    path = tmp_path / "w.npy"
    with create_npy(path, np.dtype(dtype), shape) as write_piece:
        write_piece(0, sample_array(dtype, shape).reshape(-1))
        assert not path.exists()
    read = np.load(path)
    assert read.dtype == dtype
    assert read.shape == shape
    assert (read == sample_array(dtype, shape)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["w.npy"]


def test_npy_of_bfloat16_is_refused_with_a_remedy(tmp_path):
    with (
        pytest.raises(ValueError, match=r"bfloat16.*\.safetensors"),
        create_npy(tmp_path / "w.npy", np.dtype(ml_dtypes.bfloat16), (2,)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def mixed_arrays():
    return {
        "half": sample_array(np.float16, (3,)),
        "brain": sample_array(ml_dtypes.bfloat16, (5, 3)),
        "single": sample_array(np.float32, (2, 2, 2)),
        "double": sample_array(np.float64, (7,)),
        "complex": sample_array(np.complex64, (3, 2)),
        "empty": sample_array(np.float32, (0, 3)),
        "scalar": sample_array(np.float32, ()),
        "Gewicht·é": sample_array(np.float32, (4,)),
    }


def write(path, arrays, metadata):
    with create_safetensors(path, {name: (a.dtype, a.shape) for name, a in arrays.items()}, metadata) as write_piece:
        for name, array in arrays.items():
            write_piece(name, 0, array.reshape(-1))


def test_safetensors_is_read_by_the_official_library(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, mixed_arrays(), {"format": "pt", "note": 'quotes " and ü'})
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt", "note": 'quotes " and ü'}
    read = safetensors.numpy.load_file(path)
    assert read.keys() == mixed_arrays().keys()
    for name, array in mixed_arrays().items():
        assert read[name].shape == array.shape
        assert (bits(read[name]) == bits(array)).all()


def test_safetensors_is_read_by_torch(tmp_path):
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file

    write(tmp_path / "w.safetensors", mixed_arrays(), {"format": "pt"})
    read = load_file(tmp_path / "w.safetensors")
    assert read["brain"].dtype == torch.bfloat16
    assert (read["brain"].view(torch.int16).numpy().reshape(-1) == bits(mixed_arrays()["brain"]).view(np.int16)).all()


def test_safetensors_tensors_are_aligned_to_their_elements(tmp_path):
    write(tmp_path / "w.safetensors", mixed_arrays(), {})
    for name, entry in read_safetensors(tmp_path / "w.safetensors").tensors.items():
        assert entry.start % mixed_arrays()[name].itemsize == 0


def test_what_was_written_is_read_back(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, mixed_arrays(), {"a": "b"})
    file = read_safetensors(path)
    assert file.metadata == {"a": "b"}
    for name, array in mixed_arrays().items():
        read = file.open_tensor(name)
        assert read.dtype == array.dtype
        assert (bits(read) == bits(array)).all()


def test_files_of_the_official_library_are_read(tmp_path):
    safetensors.numpy.save_file({"a": sample_array(np.float32, (3, 2))}, tmp_path / "w.safetensors", {"k": "v"})
    file = read_safetensors(tmp_path / "w.safetensors")
    assert file.metadata == {"k": "v"}
    assert (file.open_tensor("a") == sample_array(np.float32, (3, 2))).all()


def test_a_tensor_cannot_have_the_name_of_the_metadata(tmp_path):
    with pytest.raises(ValueError, match="__metadata__"):
        write(tmp_path / "w.safetensors", {"__metadata__": sample_array(np.float32, (1,))}, {})


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing_behind(tmp_path, failure):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    tensors = {"a": (np.dtype(np.float32), (4,))}
    with pytest.raises(failure), create_safetensors(path, tensors, {}) as write_piece:  # noqa: PT012
        write_piece("a", 0, np.ones(2, np.float32))
        raise failure
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_an_existing_file_is_replaced_and_a_link_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with create_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_the_file_has_the_usual_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        with create_file(tmp_path / "w"):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "w").stat().st_mode) == 0o644


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, create_file(tmp_path / "no" / "w"):
        pass
    assert caught.value.filename == str(tmp_path / "no" / "w")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    reader = os.open(tmp_path / "pipe.npy", os.O_RDONLY | os.O_NONBLOCK)
    with create_file(tmp_path / "pipe.npy") as file:
        file.write(b"text")
    assert os.read(reader, 100) == b"text"
    with pytest.raises(OSError, match=r"pipe\.npy") as caught, create_npy(tmp_path / "pipe.npy", np.dtype("f4"), (1,)):
        pass
    assert "is a pipe or a device" in caught.value.strerror
    os.close(reader)
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


def test_a_directory_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError), create_file(tmp_path):
        pass


def test_a_long_name_is_accepted(tmp_path):
    with create_file(tmp_path / ("ü" * 120)):
        pass


def test_a_killed_process_s_file_is_removed_and_a_running_one_s_is_kept(tmp_path):
    (tmp_path / ".w.0123abcd.part").write_bytes(b"left")
    (tmp_path / ".other.0123abcd.part").write_bytes(b"of another file")
    with create_file(tmp_path / "w") as first:
        first.write(b"first")
        with create_file(tmp_path / "w") as second:
            second.write(b"second")
        assert sorted(path.name for path in tmp_path.glob(".*")) == [".other.0123abcd.part", Path(first.name).name]
    assert (tmp_path / "w").read_bytes() == b"first"


def test_pieces_are_written_in_any_order(tmp_path):
    tensors = {name: (array.dtype, array.shape) for name, array in mixed_arrays().items()}
    with create_safetensors(tmp_path / "w", tensors, {}) as write_piece:
        for name, array in reversed(mixed_arrays().items()):
            half = array.size // 2
            write_piece(name, half, array.reshape(-1)[half:])
            write_piece(name, 0, array.reshape(-1)[:half])
    write(tmp_path / "same", mixed_arrays(), {})
    assert (tmp_path / "w").read_bytes() == (tmp_path / "same").read_bytes()


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from seedbed._files.safetensors import create_safetensors
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with create_safetensors(Path(sys.argv[1]), {"a": (np.dtype(np.float32), (1_000_000,))}, {}) as write_piece:
        write_piece("a", 0, np.ones(1_000_000, np.float32))
except OSError as error:
    print(error.filename, error.strerror)
"""


def test_a_full_disk_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "w.safetensors"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{path} File too large"
    assert not list(tmp_path.iterdir())


def test_a_file_too_large_for_the_disk_is_refused_before_any_work(tmp_path):
    path = tmp_path / "w.npy"
    with pytest.raises(OSError, match="No space left") as caught, create_npy(path, np.dtype(np.float32), (1 << 48,)):
        pass
    assert caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_the_error_of_a_disk_that_fills_up_names_the_file(tmp_path, monkeypatch):
    room = [10, 6]

    def pwrite(_descriptor, content, _position):
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return min(len(content), room.pop())

    monkeypatch.setattr(os, "pwrite", pwrite)
    path = tmp_path / "w.npy"
    with pytest.raises(OSError, match="No space left") as caught, create_npy(path, np.dtype(np.float32), (9,)) as write:
        write(0, np.ones(9, np.float32))
    assert caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_a_partial_write_is_continued(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, position: pwrite(file, content[:7], position))
    with create_npy(tmp_path / "w.npy", np.dtype(np.float32), (9,)) as write_piece:
        write_piece(3, sample_array(np.float32, (9,))[3:])
        write_piece(0, sample_array(np.float32, (9,))[:3])
    assert (np.load(tmp_path / "w.npy") == sample_array(np.float32, (9,))).all()


def header(fields):
    text = json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text


BROKEN = {
    "empty": b"",
    "text": b"hello, I am not a tensor",
    "a header beyond the file": (10**6).to_bytes(8, "little") + b"{}",
    "not JSON": (4).to_bytes(8, "little") + b"{{{{",
    "not an object": header([1]),
    "no offsets": header({"a": {"dtype": "F32", "shape": [1]}}),
    "shape and extent disagree": header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}) + bytes(4),
    "negative": header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
    "truncated": header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}) + bytes(4),
    "too long": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}) + bytes(5),
    "gap": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}) + bytes(8),
    "metadata not an object": header({"__metadata__": 3}),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"w\.safetensors"):
        read_safetensors(path)


def test_an_unsupported_dtype_is_refused_only_when_opened(tmp_path):
    safetensors.numpy.save_file({"a": np.arange(3)}, tmp_path / "w.safetensors")
    with pytest.raises(FileFormatError, match="I64"):
        read_safetensors(Path(tmp_path / "w.safetensors")).open_tensor("a")
