"""`hnlib predict`: geometry, refusal, damaged files, and DICOM objects read back voxel by voxel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from scanfiles import ras_affine, write_dicom, write_scan

from hnlib import predict
from hnlib.cases import Case
from hnlib.cli import main
from hnlib.dicom.export import planes, read_headers, write_segmentation, write_structures
from hnlib.errors import ConfigError, DataError
from hnlib.experiments import Study, train_run
from hnlib.experiments.export import export_model
from hnlib.model_file import MODEL_NAME, ModelFile, how_far, load_model, look_at, odd_volumes, origin, save_model, see
from hnlib.networks import build_network, plan_topology
from hnlib.predict import Outputs, doubts, predict_files, predict_image, write_labels
from hnlib.preprocess import Plan, preprocess_case
from hnlib.systems import Blueprint
from hnlib.volumes import Volume, read_volume

ORGANS = ("brainstem", "parotid_left", "parotid_right")
PLAN = Plan(
    spacing_mm=(2.0, 2.0, 2.5), median_shape=(16, 16, 16), clip_hu=(-200.0, 300.0), mean_hu=40.0, sd_hu=100.0,
    organs=ORGANS,
)  # fmt: skip
SHAPE = (34, 26, 15)


def apart(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a model file and its description."""
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), json.loads(file.metadata()["hnlib-model"])


def scan() -> NDArray[np.float32]:
    """Return tissue in air, one corner of its box empty, with a bright and a dark block: unlike its mirror images."""
    image = np.full(SHAPE, -1000, np.float32)
    image[3:31, 2:24, 1:14] = 20
    image[22:31, 2:9, 1:14] = -1000
    image[5:12, 4:10, 2:8], image[20:29, 12:20, 6:12] = 150, -60
    return image


def case(image: NDArray[np.float32], spacing_mm: tuple[float, float, float] = (1.0, 1.5, 2.5)) -> Case:
    return Case("one", image, np.zeros(image.shape, np.uint8), spacing_mm, ORGANS)


@pytest.fixture(scope="module")
def model() -> ModelFile:
    """Return a model with a tiny untrained network, whose training image was the scan."""
    patch = (16, 16, 8)
    topology = plan_topology(patch, PLAN.spacing_mm)
    torch.manual_seed(0)
    network = build_network("dynunet", topology, len(ORGANS) + 1, width=4, cap=8)
    blueprint = Blueprint("dynunet", width=4, cap=8, topology=topology, patch=patch, plan=PLAN)
    return ModelFile(
        blueprint, see([preprocess_case(case(scan()), PLAN)], PLAN), "a box", {"network": network.state_dict()},
        provenance={"seed": 0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def model_path(model: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / MODEL_NAME
    save_model(path, model)
    return path


@pytest.fixture(scope="module")
def wanted(model: ModelFile) -> NDArray[np.uint8]:
    """Return the prediction on the RAS grid; it holds more than one class, else these tests could not fail."""
    labels = predict_image(Volume(scan(), (1.0, 1.5, 2.5), ras_affine()), model)
    assert len(np.unique(labels)) > 1
    return labels


# Geometry


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SRP", "AIL"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_output_lies_on_the_grid_of_its_input(
    axes: str, suffix: str, model_path: Path, wanted: NDArray[np.uint8], tmp_path: Path
) -> None:
    """However the axes are stored: the same organs in space, and for NIfTI the very grid of the file."""
    source = write_scan(tmp_path / f"ct{suffix}", scan(), axes=axes)
    labels = predict_files(source, model_path, Outputs(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(labels, wanted)
    again = read_volume(tmp_path / "out.nii.gz", labels=True)
    assert again.stored_axes == axes
    np.testing.assert_array_equal(again.array, wanted)
    np.testing.assert_allclose(again.affine, ras_affine(), atol=1e-4)
    if suffix == ".nii.gz":
        before, after = nib.load(source), nib.load(tmp_path / "out.nii.gz")
        assert after.shape == before.shape
        np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)


def test_a_scan_turned_by_a_few_degrees_keeps_its_grid(model_path: Path, tmp_path: Path) -> None:
    angle = np.radians(5)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ ras_affine()
    source = write_scan(tmp_path / "ct.nii.gz", scan(), axes="PLS", affine=affine)
    predict_files(source, model_path, Outputs(tmp_path / "out.nii.gz"))
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii.gz").affine, nib.load(source).affine, atol=1e-4)


def test_in_python_one_call_takes_paths(model_path: Path, wanted: NDArray[np.uint8], tmp_path: Path) -> None:
    source = write_scan(tmp_path / "ct.nrrd", scan())
    np.testing.assert_array_equal(predict_image(str(source), str(model_path)), wanted)


def test_names_and_colours_lie_beside_the_label_map(tmp_path: Path) -> None:
    """ITK-SNAP's label description and Slicer's colour table say the same of every value."""
    labels = np.zeros(SHAPE, np.uint8)
    write_labels(tmp_path / "a.b.nii.gz", labels, Volume(scan(), (1.0, 1.5, 2.5), ras_affine()), ORGANS)
    snap = [line.split(None, 7) for line in (tmp_path / "a.b.labels.txt").read_text().splitlines()]
    slicer = [line.split() for line in (tmp_path / "a.b.ctbl").read_text().splitlines()]
    assert [row[0] for row in snap] == [row[0] for row in slicer] == ["0", "1", "2", "3"]
    assert [row[1:4] for row in snap[1:]] == [row[2:5] for row in slicer[1:]]
    assert slicer[1] == ["1", "brainstem", "213", "94", "0", "255"]  # #D55E00
    assert snap[2][7] == '"Parotid L"'


# Refusal


@pytest.mark.parametrize(
    ("image", "spacing", "reason"),
    [
        (scan() + 1024, (1.0, 1.5, 2.5), "quantile of HU"),
        (scan() / 1000, (1.0, 1.5, 2.5), "quantile of HU"),
        (scan(), (1.0, 1.5, 9.0), "voxel edges 1 x 1.5 x 9 mm where training had 1 x 1.5 x 2.5 to 1 x 1.5 x 2.5 mm"),
        (scan()[:12], (1.0, 1.5, 2.5), "body 9 x "),
        (np.tile(scan()[:, :, 1:14], (1, 1, 3)), (1.0, 1.5, 2.5), "body 28 x 33 x 97.5 mm"),
    ],
    ids=["offset", "rescaled", "thick slices", "half a head", "whole body"],
)
def test_images_far_from_training_are_refused_in_one_line_unless_forced(
    image: NDArray[np.float32], spacing: tuple[float, float, float], reason: str, model: ModelFile
) -> None:
    volume = Volume(image, spacing, np.diag([*spacing, 1.0]))
    with pytest.raises(DataError) as caught:
        predict_image(volume, model)
    assert reason in str(caught.value)
    assert "--force" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert predict_image(volume, model, force=True).shape == image.shape


def test_images_like_those_of_training_are_taken(model: ModelFile) -> None:
    """Edges up to twice, extents up to 1.5 times, HU up to 100 away."""
    for image, spacing in ((scan() + 60, (1.0, 1.5, 2.5)), (scan(), (1.4, 1.9, 3.4)), (scan(), (0.7, 1.1, 1.8))):
        assert how_far(preprocess_case(case(image, spacing), PLAN), PLAN, model.seen) == []


def test_ranges_span_the_training_images() -> None:
    cases = [preprocess_case(case(scan(), edges), PLAN) for edges in ((1.0, 1.5, 2.5), (2.0, 1.0, 3.0))]
    seen = see(iter(cases), PLAN)
    assert seen.spacing_mm == ((1.0, 1.0, 2.5), (2.0, 1.5, 3.0))
    assert seen.extent_mm == ((28, 22, 32.5), (56, 33, 39))
    assert seen.cases == 2
    assert look_at(cases[0], PLAN)["quantiles_hu"][2] == pytest.approx(20, abs=3)
    with pytest.raises(DataError, match="no training case"):
        see([], PLAN)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_scan_with_values_that_are_no_numbers_is_refused(bad: float, model_path: Path, tmp_path: Path) -> None:
    image = scan()
    image[3, 3, 3] = bad
    source = write_scan(tmp_path / "ct.nii.gz", image)
    with pytest.raises(DataError, match=r"ct\.nii\.gz.*NaN or infinite"):
        predict_files(source, model_path, Outputs(tmp_path / "out.nii.gz"))
    assert not (tmp_path / "out.nii.gz").exists()


# Model files


def test_a_model_says_where_it_comes_from_and_how_good_it_is(model: ModelFile) -> None:
    """Files without a test, and without anything, say so."""
    made = {"dataset": "openkbp", "profile": "laptop", "experiment": "recipe", "steps": 9}
    test = {"mean_dsc": 0.5, "cases": 2, "dsc": {"brainstem": 0.75, "parotid_left": 0.25}}
    assert origin(replace(model, provenance={**made, "test": test})) == (
        "openkbp/laptop/recipe, 9 steps; mean test DSC 0.500 over 2 organs, 2 cases"
    )
    assert origin(replace(model, provenance=made)).startswith("openkbp/laptop/recipe, 9 steps; not measured (")
    assert origin(replace(model, provenance={})).startswith("origin unknown; not measured (")


def test_a_volume_far_from_those_of_training_is_told(model: ModelFile) -> None:
    """Half and twice are taken; an organ that was never outlined, or is not found, is not judged."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:15, 4:14, 2:12] = 1  # 1000 voxels of 3.75 mm3
    labels[16:26, 4:14, 2:12] = 2
    one = Case("one", scan(), labels, (1.0, 1.5, 2.5), ORGANS, frozenset({"brainstem"}))
    seen = see([preprocess_case(one, PLAN)], PLAN)
    low, high = seen.volumes_ml
    assert low[0] == high[0] == pytest.approx(3.75, rel=0.1)
    assert (low[1], high[1]) == (0.0, np.inf)
    known = replace(model, seen=replace(seen, volumes_ml=((3.0, 0.0, 0.0), (4.0, np.inf, np.inf))))
    assert list(odd_volumes({"brainstem": 1.5, "parotid_left": 99.0, "parotid_right": 0.0}, known)) == []
    assert list(odd_volumes({"brainstem": 8.1}, known)) == [
        "brainstem has 8.1 ml where training had 3 to 4 ml; look at its outline"
    ]
    assert len(list(odd_volumes({"brainstem": 1.4}, known))) == 1


def test_a_model_of_the_profile_tiny_is_warned_of(model: ModelFile, tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.safetensors", replace(model, provenance={"profile": "tiny"}))
    source, said = write_scan(tmp_path / "ct.nrrd", scan()), list[str]()
    predict_files(source, tmp_path / "tiny.safetensors", Outputs(tmp_path / "out.nii.gz"), report=said.append)
    assert any(line.startswith("warning: ") and "the profile tiny shows only that files work" in line for line in said)


def test_a_model_file_comes_back_as_it_was(model: ModelFile, model_path: Path) -> None:
    again = load_model(model_path)
    assert replace(again, weights={}) == replace(model, weights={})
    ours = model.weights["network"]
    assert all(torch.equal(again.weights["network"][name], tensor) for name, tensor in ours.items())
    assert load_model(model_path.parent).plan == model.plan


def test_half_precision_halves_the_weights_and_keeps_the_prediction(
    model: ModelFile, model_path: Path, wanted: NDArray[np.uint8], tmp_path: Path
) -> None:
    small = tmp_path / "half.safetensors"
    save_model(small, model, half=True)
    (full, _), (half, _) = apart(model_path), apart(small)
    assert {t.dtype for t in full.values()} == {torch.float32}
    assert {t.dtype for t in half.values()} == {torch.float16}
    assert small.stat().st_size < 0.6 * model_path.stat().st_size
    assert {t.dtype for t in load_model(small).weights["network"].values()} == {torch.float32}
    labels = predict_image(Volume(scan(), (1.0, 1.5, 2.5), ras_affine()), small)
    assert (labels == wanted).mean() > 0.99


def test_a_tensor_of_two_names_is_stored_once(model: ModelFile, tmp_path: Path) -> None:
    """MONAI's DynUNet names most of its weights twice."""
    state = model.weights["network"]
    network = build_network("dynunet", model.blueprint.topology, len(ORGANS) + 1, width=4, cap=8)
    save_model(tmp_path / "m", model)
    tensors, content = apart(tmp_path / "m")
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in network.parameters())
    assert len(tensors) + len(content["same"]) == len(state)
    assert content["same"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: c.update(version=99), "version 99"),
        (lambda c, t: c.pop("format"), "is no model file"),
        (lambda c, t: c.pop("plan"), "is damaged"),
        (lambda c, t: c["topology"].update(kernel=3), "is damaged"),
        (lambda c, t: c["network"].update(patch=[1, 2]), "is damaged"),
        (lambda c, t: c["same"].update({"network/more": "network/none"}), "is damaged"),
        (lambda c, t: c["network"].update(width=5), "of another architecture"),
        (lambda c, t: c["same"].popitem(), "of another architecture"),
        (lambda c, t: (t.clear(), c["same"].clear()), "lacks the weights of 'network'"),
        (lambda c, t: c["system"].update(name="one_networks"), "does not know its system 'one_networks'"),
    ],
)
def test_faulty_model_files_are_refused_in_one_line(
    change: Callable[[Any, Any], object], message: str, model_path: Path, tmp_path: Path
) -> None:
    tensors, content = apart(model_path)
    change(content, tensors)
    (tmp_path / "bad.safetensors").write_bytes(safetensors.torch.save(tensors, {"hnlib-model": json.dumps(content)}))
    with pytest.raises(DataError) as caught:
        load_model(tmp_path / "bad.safetensors").predictor()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_or_overwritten_model_file_is_a_data_error(
    data: st.DataObject, model_path: Path, tmp_path: Path
) -> None:
    """Cut anywhere, or its first kilobyte filled with noise: never a traceback of another kind."""
    content = model_path.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    noise = data.draw(st.binary(max_size=64))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(noise + content[len(noise) : cut])
    with pytest.raises(DataError, match=r"damaged\.safetensors"):
        load_model(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model .*none\.pt: no such file"):
        load_model(tmp_path / "none.pt")


def test_a_finished_run_is_exported_and_predicts_without_its_study(tiny_study: Study, tmp_path: Path) -> None:
    """The file holds the network that the run trained, and takes the training images' own like."""
    run = train_run(tiny_study, tiny_study.settings.study[0], 0, report=lambda _: None)
    path = export_model(tiny_study, tiny_study.settings.study[0], 0)
    assert path.parent == run.folder
    moved = tmp_path / "alone.safetensors"
    path.rename(moved)
    loaded = load_model(moved)
    assert loaded.provenance["experiment"] == tiny_study.settings.study[0]
    assert loaded.seen.cases == len(tiny_study.split["train"])
    for name in tiny_study.split["train"]:
        assert how_far(tiny_study.case(name), loaded.plan, loaded.seen) == []
    assert loaded.predictor().parameters == run.record["parameters"]


def test_an_unfinished_run_is_not_exported(tiny_study: Study) -> None:
    with pytest.raises(DataError, match="not finished"):
        export_model(tiny_study, tiny_study.settings.study[0], 77)


# DICOM


def patient(folder: Path) -> Path:
    """Write the scan as DICOM slices with what a segmentation repeats of a patient and a study."""
    write_dicom(folder, scan().astype(np.int16), series="1.2.826.0.1.5")
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.PatientID, slice_.PatientName, slice_.PatientBirthDate, slice_.PatientSex = "p1", "One^Case", "", "O"
        slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = "1.2.826.0.1.6", "1.2.826.0.1.7"
        slice_.StudyDate = slice_.StudyTime = slice_.AccessionNumber = slice_.StudyID = ""
        slice_.ReferringPhysicianName, slice_.PositionReferenceIndicator = "", ""
        slice_.InstanceNumber, slice_.SliceThickness = int(path.stem) + 1, 2.5
        slice_.save_as(path)
    return folder


def outlined() -> NDArray[np.uint8]:
    """Return labels with an organ at the border of the image, one with a hole, one of single voxels."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:5, :6, 2:9] = 1
    labels[10:20, 8:18, 4:10] = 2
    labels[13:17, 11:15, 4:10] = 0
    labels[14, 12, 5] = 2
    labels[25, 20, 3] = labels[26, 21, 3] = labels[33, 25, 14] = 3
    return labels


def test_labels_on_slices_are_those_of_the_volume(tmp_path: Path) -> None:
    """The image itself, sent the same way, equals the stored pixels."""
    folder = patient(tmp_path / "ct")
    volume = read_volume(folder)
    coded = ((volume.array + 1024) // 8).astype(np.uint8)
    stored = np.stack([(pydicom.dcmread(folder / f"{k:03}.dcm").pixel_array // 8) for k in range(SHAPE[2])])
    np.testing.assert_array_equal(planes(coded, volume.affine, read_headers(folder)), stored.astype(np.uint8))
    with pytest.raises(DataError, match="does not lie on the grid"):
        planes(coded[:-1], volume.affine, read_headers(folder))


def test_a_structure_set_holds_every_voxel_and_no_other(tmp_path: Path) -> None:
    """Read back by the even-odd rule at voxel centres: border, hole, island in the hole, single voxels, all exact."""
    folder, labels = patient(tmp_path / "ct"), outlined()
    affine = read_volume(folder).affine
    write_structures(tmp_path / "rs.dcm", labels, affine, ORGANS, folder)
    found = pydicom.dcmread(tmp_path / "rs.dcm")
    headers = {str(header.SOPInstanceUID): k for k, header in enumerate(read_headers(folder))}
    stack = np.zeros((SHAPE[2], SHAPE[1], SHAPE[0]), np.uint8)
    columns, rows = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]))
    for item in found.ROIContourSequence:
        for contour in item.ContourSequence:
            k = headers[str(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)]
            header = read_headers(folder)[k]
            points = np.asarray(contour.ContourData, float).reshape(-1, 3) - header.ImagePositionPatient
            np.testing.assert_allclose(points[:, 2], 0, atol=1e-3)
            polygon = Polygon(points[:, :2] / [header.PixelSpacing[1], header.PixelSpacing[0]], closed=False)
            inside = polygon.contains_points(np.c_[columns.ravel(), rows.ravel()]).reshape(rows.shape)
            stack[k] ^= inside.astype(np.uint8) * np.uint8(item.ReferencedROINumber)
    np.testing.assert_array_equal(stack, planes(labels, affine, read_headers(folder)))
    assert [roi.ROIName for roi in found.StructureSetROISequence] == list(ORGANS)
    assert (found.PatientID, found.StudyInstanceUID, found.Modality) == ("p1", "1.2.826.0.1.6", "RTSTRUCT")
    referred = found.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert len(referred.ContourImageSequence) == SHAPE[2]


def test_a_segmentation_holds_every_voxel_and_no_other(tmp_path: Path) -> None:
    hd = pytest.importorskip("highdicom")
    folder, labels = patient(tmp_path / "ct"), outlined()
    affine = read_volume(folder).affine
    write_segmentation(tmp_path / "seg.dcm", labels, affine, ORGANS, folder)
    found = hd.seg.segread(tmp_path / "seg.dcm")
    uids = [header.SOPInstanceUID for header in read_headers(folder)]
    stack = found.get_pixels_by_source_instance(
        uids, combine_segments=True, relabel=False, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(stack, planes(labels, affine, read_headers(folder)))
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == ["Brainstem", "Parotid L", "Parotid R"]
    assert found.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue == "45289007"
    with pytest.raises(DataError, match="must not be empty"):
        write_segmentation(tmp_path / "none.dcm", labels * 0, affine, ORGANS, folder)
    assert not (tmp_path / "none.dcm").exists()


def test_a_name_of_one_part_is_written_without_a_warning(tmp_path: Path) -> None:
    """Anonymised scans have such names; any warning would fail this test."""
    pytest.importorskip("highdicom")
    folder = patient(tmp_path / "ct")
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.PatientName = "anonymous"
        slice_.save_as(path)
    write_segmentation(tmp_path / "seg.dcm", outlined(), read_volume(folder).affine, ORGANS, folder)
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == "anonymous"


def test_slices_that_lack_what_a_segmentation_repeats_are_named(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    folder = patient(tmp_path / "ct")
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        del slice_.SliceThickness
        slice_.save_as(path)
    with pytest.raises(DataError, match=r"ct: .*SliceThickness"):
        write_segmentation(tmp_path / "seg.dcm", outlined(), read_volume(folder).affine, ORGANS, folder)


def test_the_same_labels_get_the_same_identifiers(tmp_path: Path) -> None:
    folder, labels = patient(tmp_path / "ct"), outlined()
    affine = read_volume(folder).affine
    for name, part in (("a", labels), ("b", labels), ("c", labels[::-1])):
        write_structures(tmp_path / name, np.ascontiguousarray(part), affine, ORGANS, folder)
    a, b, c = (pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in "abc")
    assert a == b != c


def test_slices_without_a_frame_of_reference_are_named(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "ct", scan().astype(np.int16))
    with pytest.raises(DataError, match=r"000\.dcm: lacks StudyInstanceUID, FrameOfReferenceUID"):
        read_headers(folder)


def test_outlines_that_lie_as_in_no_patient_are_warned_of_in_one_line(
    model: ModelFile, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair with its sides exchanged is told; the mirror image of that is as it should be."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:8, 5:8, 5:8], labels[25:28, 5:8, 5:8] = 3, 2  # right is larger X
    monkeypatch.setattr(predict, "_predict", lambda *_: labels)
    source, said = write_scan(tmp_path / "ct.nrrd", scan()), list[str]()
    predict_files(source, model_path, Outputs(tmp_path / "out.nii.gz"), report=said.append)
    warnings = [line for line in said if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"warning: image {source}: parotid_left lies to the patient's right of parotid_right")
    assert "compare with its source" in warnings[0]
    assert list(doubts(labels[::-1], (1.0, 1.5, 2.5), ORGANS)) == []


# Command


def test_the_command_writes_all_that_is_asked_for(
    model_path: Path, wanted: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("highdicom")
    folder, out = patient(tmp_path / "ct"), tmp_path / "out" / "organs.nii.gz"
    arguments = ["--model", model_path, "--out", out, "--dicom-seg", tmp_path / "s.dcm"]
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(folder), *map(str, arguments), "--rtstruct", str(tmp_path / "r.dcm")])
    assert stop.value.code == 0
    np.testing.assert_array_equal(read_volume(out, labels=True).array, wanted)
    names = {path.name for path in (*tmp_path.iterdir(), *out.parent.iterdir())}
    assert {"s.dcm", "r.dcm", "organs.nii.gz", "organs.labels.txt", "organs.ctbl"} <= names
    printed = capsys.readouterr().out
    ml = np.count_nonzero(wanted == 1) * 1.0 * 1.5 * 2.5 / 1000
    assert (f"brainstem: {ml:.2f} ml" if ml else "brainstem: not found") in printed
    written = [out, out.with_name("organs.labels.txt"), out.with_name("organs.ctbl"), tmp_path / "s.dcm"]
    assert f"written: {', '.join(map(str, written))}, {tmp_path / 'r.dcm'}\n" in printed
    assert f"model {model_path}: " in printed


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        ("none.nii.gz", [], "none.nii.gz: the file is missing"),
        ("ct.nii.gz", ["--rtstruct", "r.dcm"], "give the folder of DICOM slices"),
        ("far.nii.gz", [], "far.nii.gz: far from the 1 scans"),
        ("cut.nii.gz", [], "cut.nii.gz"),
    ],
)
def test_a_users_fault_is_one_line_and_status_2(
    image: str, options: list[str], message: str, model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "ct.nii.gz", scan())
    write_scan(tmp_path / "far.nii.gz", scan() + 1024)
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "ct.nii.gz").read_bytes()[:900])
    out = tmp_path / "out.nii.gz"
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path / image), "--model", str(model_path), "--out", str(out), *options])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


#: What is given as scan, what predict says of it, and whether it does so when forced, too.
SILLY = {
    "three.nii.gz": (np.arange(-810, 810, 60, np.float32).reshape(3, 3, 3), "far from the 1 scans", False),
    "row.nii.gz": (np.linspace(-900, 900, 5, dtype=np.float32).reshape(5, 1, 1), "far from the 1 scans", False),
    "one.nii.gz": (np.full((1, 1, 1), 40, np.float32), "is constant, 40 everywhere", True),
    "air.nii.gz": (np.full(SHAPE, -1000, np.float32), "is constant, -1000 everywhere", True),
    "huge.nii.gz": (scan(), "voxel edges of 1e+03 x 1e+03 x 1e+03 mm make the scan too large", True),
    "text.nii.gz": (b"hello", "cannot be read", True),
    "text.txt": (b"hello", "is of no known kind", True),
    "empty": ({}, "holds no DICOM slice", True),
    "notes": ({"notes.txt": b"hello"}, "holds no DICOM slice", True),
    "text": ({"IM1": b"hello"}, "slice IM1 is damaged or no DICOM file (it lacks DICOM's header)", True),
    "none": (None, "is missing: no none.nii.gz, .nii, .nrrd, .mha, .mhd nor a DICOM folder is there", True),
}


@pytest.mark.parametrize("name", SILLY)
def test_what_is_no_scan_is_one_line_and_nothing_is_written(
    name: str, model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forced, a small scan gives a label map of its shape, and what is no scan is still none."""
    given, text, always = SILLY[name]
    source, out = tmp_path / name, tmp_path / "out.nii.gz"
    if isinstance(given, np.ndarray):
        nib.save(nib.Nifti1Image(given, np.diag([1e3, 1e3, 1e3, 1] if "huge" in name else [1, 1.5, 2.5, 1])), source)
    elif isinstance(given, bytes):
        source.write_bytes(given)
    elif given is not None:
        source.mkdir()
        for inner, content in given.items():
            (source / inner).write_bytes(content)
    for option in ([], ["--force"]):
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(source), "--model", str(model_path), "--out", str(out), *option])
        said = capsys.readouterr().err
        if option and not always:
            assert stop.value.code == 0
            assert nib.load(out).shape == given.shape  # type: ignore[union-attr]
        else:
            assert stop.value.code == 2
            assert text in said
            assert str(source) in said
            assert said.count("\n") == 1
            assert not out.exists()


@pytest.mark.parametrize(
    ("image", "outputs", "text"),
    [
        ("ct.nii.gz", ["ct.nii.gz"], "ct.nii.gz: the scan, the model or another output has this name"),
        ("ct.nii.gz", ["ct/../ct.nii.gz"], "ct.nii.gz: the scan, the model"),
        ("ct", ["o.nii", "a.dcm", "a.dcm"], "a.dcm: the scan, the model or another output"),
        ("ct", ["o.nii", "ct/003.dcm"], "003.dcm: the scan, the model or another output"),
        ("ct", ["o.nii", "ct"], "ct: the scan, the model"),
        ("ct.nii.gz", ["folder.nii"], "folder.nii: is a folder; name a file in it"),
        ("ct.nii.gz", ["ct.nii.gz/deep/o.nii"], "is no folder that you may write to; choose another"),
        ("ct.nii.gz", ["o.NII.GZ"], "name it .nii.gz or .nii"),
    ],
)
def test_an_output_in_place_of_what_is_needed_is_refused_before_any_work(
    image: str, outputs: list[str], text: str, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the scan nor one of its slices is ever replaced."""
    write_scan(tmp_path / "ct.nii.gz", scan())
    patient(tmp_path / "ct")
    (tmp_path / "folder.nii").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(predict, "_predict", pytest.fail)
    with pytest.raises((ConfigError, DataError), match=re.escape(text)):
        predict_files(tmp_path / image, model_path, Outputs(*(tmp_path / name for name in outputs)))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_objects_may_lie_among_the_slices_and_be_written_again(model_path: Path, tmp_path: Path) -> None:
    """They refer to the slices alone; files that no scanner writes, such as those of a file browser, do not hinder."""
    folder = patient(tmp_path / "ct")
    slices = {str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.iterdir()}
    (folder / ".DS_Store").write_bytes(b"Bud1")
    for _ in range(2):
        predict_files(folder, model_path, Outputs(tmp_path / "o.nii", structures=folder / "rs.dcm"))
    referred = pydicom.dcmread(folder / "rs.dcm").ReferencedFrameOfReferenceSequence[0]
    images = referred.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence
    assert {str(image.ReferencedSOPInstanceUID) for image in images} == slices


def test_a_file_that_is_no_model_is_told_in_our_words(tmp_path: Path) -> None:
    write_scan(tmp_path / "ct.nii.gz", scan())
    with pytest.raises(
        DataError, match=r"ct\.nii\.gz: is no model file, or cut off; give the one that hnlib export writes"
    ):
        load_model(tmp_path / "ct.nii.gz")


def test_an_output_that_is_not_nifti_is_refused_before_any_work(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name it"):
        predict_files(tmp_path / "ct.nii.gz", model_path, Outputs(tmp_path / "out.nrrd"))


def test_no_space_leaves_the_last_good_file(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_scan(tmp_path / "ct.nii.gz", scan()), tmp_path / "out.nii.gz"
    predict_files(source, model_path, Outputs(out))
    before = out.read_bytes()

    def full(_image: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predict.nibabel, "save", full)
    with pytest.raises(DataError, match="No space left"):
        predict_files(source, model_path, Outputs(out))
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".part-*"))
