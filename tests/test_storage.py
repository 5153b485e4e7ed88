import errno
import os
import subprocess
import sys
import tempfile
import time

import netCDF4
import numpy as np
import pytest
import xarray as xr

from sgd_escape import SgdEscapeError, storage

DIMENSION_SIZES = {"row": 28, "column": 28, "sample": 40, "threshold": 7}


def example(kind):
    """A dataset of a kind, with values that no default or fill value could imitate."""
    generator = np.random.default_rng(5)
    variables = {}
    for name, layout in storage.KINDS[kind].variables.items():
        dtype, *dims = layout.split()
        shape = tuple(DIMENSION_SIZES.get(dim, 5) for dim in dims)
        values = generator.uniform(0, 120, shape) if dims else np.float64(3.7)
        variables[name] = (dims, np.asarray(values, "U9" if dtype == "text" else dtype))
    attributes = storage.attributes({"eta": 0.1}, seed=3, equations="(15)")
    return xr.Dataset(variables, attrs=attributes | {"matrix": "Eq. (44)"})


def example_fit():
    return xr.Dataset(
        {
            "exponent": (("model", "eta"), np.array([[1.0, np.nan], [3.0, np.inf]])),
            "converged": ("eta", np.array([True, False])),
            "runs": ((), 100, {"units": "1", "long_name": "number of runs"}),
        },
        coords={"model": ["power law", "Arrhénius"], "eta": [0.1, 0.2], "effective_dimension": 9},
        attrs={"range": [1.2, 3.0], "thresholds": [1.5], "levels": 0.95},
    )


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "first_passage.nc"
    storage.write(example("first_passage"), path, "first_passage")
    return path


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def without_additions(dataset, original):
    """Without what writing adds: the digest, and the labels of variables."""
    bare = dataset.drop_attrs().assign_attrs(
        {name: value for name, value in dataset.attrs.items() if name != "content_sha256"}
    )
    for name, variable in original.variables.items():
        assert dataset.variables[name].attrs.items() >= variable.attrs.items()
        bare[name].attrs = variable.attrs
    return bare


def sealed(path):
    """Gives a file that was made or edited elsewhere a valid checksum at its end."""
    content = path.read_bytes()
    path.write_bytes(content + storage._seal(content))


CLOSED = [name for name, kind in storage.KINDS.items() if kind.variables is not None]


@pytest.mark.parametrize("kind", CLOSED)
def test_what_is_read_is_what_was_written(kind, tmp_path):
    path = tmp_path / "file.nc"
    dataset = example(kind)
    storage.write(dataset, path, kind)
    found = storage.read(path, kind)
    xr.testing.assert_identical(without_additions(found, dataset), dataset)
    for name, variable in dataset.variables.items():
        assert found.variables[name].dtype == variable.dtype
        np.testing.assert_array_equal(found.variables[name].values, variable.values)
    assert names_in(tmp_path) == ["file.nc"]


def test_a_fit_keeps_text_booleans_infinities_and_lists_of_numbers(tmp_path):
    storage.write(example_fit(), tmp_path / "fit.nc", "fit")
    found = storage.read(tmp_path / "fit.nc", "fit")
    for name, variable in example_fit().variables.items():
        np.testing.assert_array_equal(found.variables[name].values, variable.values)
        assert found.variables[name].attrs.items() >= variable.attrs.items()
    assert list(found.coords) == list(example_fit().coords)
    np.testing.assert_array_equal(found.attrs["range"], [1.2, 3.0])


def test_a_dataset_that_was_read_can_be_written_again(tmp_path):
    first, second = tmp_path / "first.nc", tmp_path / "second.nc"
    storage.write(example_fit(), first, "fit")
    storage.write(storage.read(first, "fit"), second, "fit")
    assert (
        storage.read(first, "fit").attrs["content_sha256"]
        == (storage.read(second, "fit").attrs["content_sha256"])
    )


def test_how_a_dataset_was_stored_before_does_not_matter(tmp_path):
    before = example_fit()
    before.encoding["unlimited_dims"] = {"eta"}
    before.exponent.encoding |= {"scale_factor": 2.0, "dtype": "int16", "zlib": False}
    storage.write(before, tmp_path / "first.nc", "fit")
    storage.write(example_fit(), tmp_path / "second.nc", "fit")
    assert (tmp_path / "first.nc").read_bytes() == (tmp_path / "second.nc").read_bytes()


def test_units_of_time_fill_values_and_largest_integers_are_left_as_they_are(tmp_path):
    steps = np.array([0, -(2**63), 2**63 - 1, -9223372036854775806])
    dataset = xr.Dataset(
        {
            "steps": ("run", steps, {"units": "seconds since 2000-01-01"}),
            "count": ("run", np.arange(4), {"missing_value": 0}),
            "time": ("run", np.array([9.969209968386869e36, 0.0, np.nan, -0.0]), {"units": "days"}),
        }
    )
    storage.write(dataset, tmp_path / "fit.nc", "fit")
    found = storage.read(tmp_path / "fit.nc", "fit")
    xr.testing.assert_identical(without_additions(found, dataset), dataset)


def test_diverged_runs_may_be_given_as_booleans_and_are_stored_as_integers(tmp_path):
    flags = np.array([True, False, True, True, False])
    dataset = example("first_passage").assign(diverged=("run", flags))
    storage.write(dataset, tmp_path / "file.nc", "first_passage")
    found = storage.read(tmp_path / "file.nc", "first_passage").diverged
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, [1, 0, 1, 1, 0])


def test_a_stationary_chain_may_have_diverged(tmp_path):
    dataset = example("stationary")
    dataset.theta[0, 0, 3] = np.inf
    dataset.exponent[0, 0] = np.nan
    storage.write(dataset, tmp_path / "file.nc", "stationary")
    assert np.isinf(storage.read(tmp_path / "file.nc", "stationary").theta[0, 0, 3])


def test_the_same_dataset_gives_the_same_bytes_a_second_later(tmp_path):
    storage.write(example("first_passage"), tmp_path / "first.nc", "first_passage")
    storage.write(example_fit(), tmp_path / "first_fit.nc", "fit")
    time.sleep(1.1)
    storage.write(example("first_passage"), tmp_path / "second.nc", "first_passage")
    storage.write(example_fit(), tmp_path / "second_fit.nc", "fit")
    assert (tmp_path / "first.nc").read_bytes() == (tmp_path / "second.nc").read_bytes()
    assert (tmp_path / "first_fit.nc").read_bytes() == (tmp_path / "second_fit.nc").read_bytes()


def test_other_programs_can_open_our_files(written):
    with xr.open_dataset(written, engine="netcdf4") as dataset:
        np.testing.assert_array_equal(
            dataset.first_passage_step, example("first_passage").first_passage_step
        )


def test_large_images_are_stored_in_chunks_of_whole_rows():
    variable = xr.Variable(("sample", "row", "column"), np.zeros((3000, 28, 28), np.uint8))
    assert storage._encoding(variable)["chunksizes"] == (2**20 // 28**2, 28, 28)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("pretrained", lambda d: d.drop_vars("loss"), "variable loss is missing"),
        ("pretrained", lambda d: d.assign(bias=1.0), "variable bias does not belong there"),
        (
            "pretrained",
            lambda d: d.transpose(),
            "hidden_weight is 'float32 hidden input', needed is 'float32 input hidden'",
        ),
        (
            "pretrained",
            lambda d: d.assign(loss=d.loss.astype(np.float32)),
            "loss is 'float32', needed is 'float64'",
        ),
        (
            "pretrained",
            lambda d: d.assign(hidden_bias=d.hidden_bias * np.float32("nan")),
            "hidden_bias holds 5 values that are not finite",
        ),
        (
            "first_passage",
            lambda d: d.assign_coords(threshold=[1, 2, 3, 4, 5, 6, np.inf]),
            "threshold holds 1 values that are not finite",
        ),
        (
            "stationary",
            lambda d: d.assign(predicted_exponent=d.predicted_exponent * np.nan),
            "predicted_exponent holds 25 values that are not finite",
        ),
        ("hessian", lambda d: d.drop_attrs(), "attribute matrix is missing"),
        ("fit", lambda d: xr.Dataset(), "it holds no variable"),
        ("fit", lambda d: d.assign(z=1j), "variable z is complex128"),
        ("fit", lambda d: d.assign(z=np.datetime64("2000", "ns")), "variable z is datetime64"),
    ],
)
def test_a_dataset_that_is_not_of_its_kind_is_neither_written_nor_read(
    kind, change, message, tmp_path
):
    path = tmp_path / "file.nc"
    wrong = change(example_fit() if kind == "fit" else example(kind))
    with pytest.raises(SgdEscapeError, match=message):
        storage.write(wrong, path, kind)
    assert names_in(tmp_path) == []
    if kind == "fit":
        return
    storage.write(wrong, path, "fit")
    with pytest.raises(SgdEscapeError, match=f"is not a {kind} file: .*{message}.* Delete it and"):
        storage.read(path, kind)


@pytest.mark.parametrize("value", [None, True, {"a": 1}, 2**70])
def test_an_attribute_that_netcdf_cannot_hold_is_refused(value, tmp_path):
    with pytest.raises(SgdEscapeError, match="NetCDF cannot hold its content"):
        storage.write(example_fit().assign_attrs(odd=value), tmp_path / "file.nc", "fit")
    assert names_in(tmp_path) == []


def test_any_flipped_bit_is_noticed(written):
    content = written.read_bytes()
    generator = np.random.default_rng(1)
    for position in generator.integers(0, len(content), 200):
        damaged = bytearray(content)
        damaged[position] ^= 1 << generator.integers(8)
        written.write_bytes(damaged)
        with pytest.raises(SgdEscapeError, match=r"first_passage.nc .* Delete it and run the same"):
            storage.read(written, "first_passage")


def test_a_file_cut_or_lengthened_at_any_place_is_refused(written):
    content = written.read_bytes()
    lengths = np.random.default_rng(1).integers(0, len(content), 100)
    for length in [0, 1, 71, 72, 73, len(content) - 72, len(content) - 1, *lengths]:
        written.write_bytes(content[:length])
        with pytest.raises(SgdEscapeError, match="does not end with its checksum"):
            storage.read(written, "first_passage")
    written.write_bytes(content + b"\0")
    with pytest.raises(SgdEscapeError, match="does not end with its checksum"):
        storage.read(written, "first_passage")


def test_a_file_edited_with_another_program_is_refused(written):
    with netCDF4.Dataset(written, "r+") as file:
        file["first_passage_step"][0, 0] += 1
    with pytest.raises(SgdEscapeError, match=r"damaged or edited|does not end with its checksum"):
        storage.read(written, "first_passage")
    sealed(written)
    with pytest.raises(SgdEscapeError, match="was edited: its content has SHA-256"):
        storage.read(written, "first_passage")


def test_every_part_of_the_content_enters_its_digest():
    dataset = example_fit()
    changed = [
        dataset.rename(runs="number"),
        dataset.transpose(),
        dataset.assign(runs=dataset.runs.astype(np.int32)),
        dataset.assign(runs=dataset.runs + 1),
        dataset.assign(runs=dataset.runs.drop_attrs()),
        dataset.assign_coords(model=["power law", "Arrhenius"]),
        dataset.assign_coords(eta=[0.1, 0.3]),
        dataset.assign_attrs(levels=0.9),
        dataset.assign_attrs(more="text"),
    ]
    digests = {storage.content_digest(each) for each in [dataset, *changed]}
    assert len(digests) == 1 + len(changed)


def test_the_digest_does_not_depend_on_order_or_byte_order():
    dataset = example("pretrained")
    reordered = xr.Dataset(
        {
            name: dataset[name].astype(dataset[name].dtype.newbyteorder(">"))
            for name in reversed(list(dataset.variables))
        },
        attrs=dict(reversed(dataset.attrs.items())),
    )
    assert storage.content_digest(reordered) == storage.content_digest(dataset)


@pytest.mark.parametrize("content", [b"", b"not NetCDF at all", b"\x89HDF\r\n\x1a\n" + bytes(90)])
def test_a_file_that_is_not_netcdf_is_refused(content, tmp_path):
    path = tmp_path / "file.nc"
    path.write_bytes(content)
    with pytest.raises(SgdEscapeError, match=r"file\.nc does not end with its checksum"):
        storage.read(path, "fit")
    sealed(path)
    with pytest.raises(SgdEscapeError, match=r"file\.nc cannot be decoded as NetCDF"):
        storage.read(path, "fit")


def test_a_file_without_a_digest_of_its_content_is_refused(tmp_path):
    path = tmp_path / "file.nc"
    example_fit().to_netcdf(path, engine="netcdf4")
    sealed(path)
    with pytest.raises(SgdEscapeError, match="recorded is nothing"):
        storage.read(path, "fit")


@pytest.mark.parametrize(("name", "what"), [("absent.nc", "No such file"), ("", "Is a directory")])
def test_a_missing_file_is_named(name, what, tmp_path):
    with pytest.raises(SgdEscapeError, match=f"{what}.*Run the command that makes it first"):
        storage.read(tmp_path / name, "fit")


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(function, written, monkeypatch):
    before = written.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(
        SgdEscapeError, match=r"was not written: No space left on device. Free some"
    ):
        storage.write(example("first_passage"), written, "first_passage")
    assert written.read_bytes() == before
    assert names_in(written.parent) == [written.name]


def test_a_disk_that_is_really_full_is_reported_and_stays_clean(small_disk):
    path = small_disk / "stationary.nc"
    with pytest.raises(SgdEscapeError, match=r"No space left on device. Free some space for"):
        storage.write(example("stationary"), path, "stationary")
    assert names_in(small_disk) == []


def test_a_full_folder_for_temporary_files_is_reported(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(SgdEscapeError, match=r"could not be prepared .* set TMPDIR"):
        storage.write(example("stationary"), tmp_path / "stationary.nc", "stationary")
    assert names_in(small_disk) == []
    assert names_in(tmp_path) == ["small_disk"]


def test_a_missing_folder_for_temporary_files_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(SgdEscapeError, match=r"could not be prepared .* set TMPDIR"):
        storage.write(example("stationary"), tmp_path / "stationary.nc", "stationary")
    assert names_in(tmp_path) == []


def test_attributes_are_pure_and_leave_out_what_is_not_given():
    config = {"b": [1, 2.5], "a": {"d": None, "c": True}}
    reordered = {"a": {"c": True, "d": None}, "b": [1, 2.5]}
    found = storage.attributes(config)
    assert found == storage.attributes(reordered)
    assert found["config"] == '{"a": {"c": true, "d": null}, "b": [1, 2.5]}'
    assert set(found) == {"package_version", "config", "config_sha256"}
    assert len(found["config_sha256"]) == 64
    assert storage.attributes({}, seed=0, equations="(15)").items() >= {
        ("seed", 0),
        ("equations", "(15)"),
    }


def test_neither_storage_nor_datasets_imports_jax():
    code = "import sys, sgd_escape.storage, sgd_escape.datasets; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_kind_of_file_of_the_study_has_a_layout_that_can_be_read():
    for kind in storage.KINDS.values():
        for layout in (kind.variables or {}).values():
            dtype, *dims = layout.split()
            assert dtype == "text" or np.dtype(dtype).kind in "iuf"
            assert len(set(dims)) == len(dims)
        assert set(kind.may_be_non_finite) <= set(kind.variables or {})


def test_variables_carry_their_units_and_names(tmp_path):
    dataset = xr.Dataset({f"exponent{part}": 1.0 for part in ["", "_low", "_high"]})
    storage.write(dataset.assign(events=3), tmp_path / "fit.nc", "fit")
    found = storage.read(tmp_path / "fit.nc", "fit")
    assert found["exponent_low"].attrs == {
        "long_name": "fitted exponent, lower bound",
        "units": "1",
    }
    assert found["exponent"].attrs["long_name"] == "fitted exponent"
    assert found["events"].attrs["units"] == "runs"
