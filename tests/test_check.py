"""`hnlib check`: every one of many damages is found, by case and file in one line with a remedy; clean data have none.

Each layout is written once with many cases, each damaged in its own way, and checked by one command.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import yaml
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from scanfiles import BOXES, HEAD_MM, HEAD_SHAPE, RAS, head, organ_mask, ras_affine, write_dicom, write_head, write_scan

from hnlib.cli import main
from hnlib.datasets.check import Sized, _odd_sizes
from hnlib.datasets.openkbp import AXES, SHAPE
from hnlib.datasets.pddca import TRAINING
from hnlib.datasets.tcia import OBSERVERS
from hnlib.organs import ORGANS

FILES = {"parotid_left": "Parotis (links)", "parotid_right": "右腮腺", "mandible": 7, "brainstem": 2}
LEFT, RIGHT = "Parotis (links).mha", "右腮腺.nrrd"
MORE = {
    "spinal_cord": ((18, 22), (14, 18), (2, 10)),
    "submandibular_left": ((8, 11), (24, 27), (9, 12)),
    "submandibular_right": ((29, 32), (24, 27), (9, 12)),
    "lens_left": ((14, 16), (32, 33), (27, 28)),
    "lens_right": ((24, 26), (32, 33), (27, 28)),
    "cochlea_left": ((12, 14), (17, 19), (21, 23)),
    "cochlea_right": ((26, 28), (17, 19), (21, 23)),
}
Array = NDArray[np.generic]
Same = Callable[[Array], Array]


class Damage(NamedTuple):
    """What is done to the folder of a case, the file that must be named, and what must be said of it."""

    do: Callable[[Path], object]
    file: str
    text: str


def mask(organ: str) -> NDArray[np.uint8]:
    if organ in BOXES:
        return organ_mask(organ)
    found = np.zeros(HEAD_SHAPE, np.uint8)
    found[tuple(slice(*span) for span in MORE[organ])] = 1
    return found


# Damages of any file.


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def at(path: Path, place: int, new: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[place : place + len(new)] = new
    path.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    third = one.with_name("third")
    one.rename(third)
    other.rename(one)
    third.rename(other)


# The layout `folder`.


def write_case(
    folder: Path, seed: int = 0, affine: NDArray[np.float64] | None = None, turn: Same = lambda array: array
) -> None:
    options: dict[str, Any] = {"affine": ras_affine(HEAD_MM) if affine is None else affine}
    write_scan(folder / "image.nii.gz", turn(head(seed)), **options)
    labels = 7 * mask("mandible") + 2 * mask("brainstem")
    write_scan(folder / "labels.nrrd", turn(labels), **options)
    write_scan(folder / LEFT, turn(mask("parotid_left")), **options)
    write_scan(folder / RIGHT, turn(mask("parotid_right")), **options)


def again(folder: Path, name: str, array: Array, **options: Any) -> Path:
    """Write the scan once more under another name, and remove the first."""
    (folder / "image.nii.gz").unlink()
    return write_head(folder / name, array, **options)


def dicom_case(folder: Path) -> Path:
    """Make the scan a folder of slices, and put the outlines on its grid."""
    seed = int(folder.name.split()[-1])
    write_case(folder, seed, ras_affine())
    (folder / "image.nii.gz").unlink()
    return write_dicom(folder / "image", head(seed))


def broken_image(value: float) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        image = head(int(folder.name.split()[-1])).astype(np.float32)
        image[20, 20, 20] = value
        write_head(folder / "image.nii.gz", image)

    return do


def two_sides(folder: Path) -> None:
    image = nib.Nifti1Image(head(99), None)
    image.set_sform(ras_affine(HEAD_MM), 1)
    image.set_qform(np.diag((-1.0, 1, 1, 1)) @ ras_affine(HEAD_MM), 1)
    nib.save(image, folder / "image.nii.gz")


def labels_with(value: int, dtype: type = np.int16) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        labels = (7 * mask("mandible") + 2 * mask("brainstem")).astype(dtype)
        labels[0, 0, 0] = value
        write_head(folder / "labels.nrrd", labels)

    return do


def four_dimensions(folder: Path) -> None:
    nib.save(nib.Nifti1Image(np.stack([head(98)] * 2, -1), ras_affine(HEAD_MM)), folder / "image.nii.gz")


def fill(folder: Path) -> None:
    wide = np.zeros(HEAD_SHAPE, np.uint8)
    wide[:16] = 1
    write_head(folder / LEFT, wide)


FOLDER = [
    Damage(lambda c: cut(c / "image.nii.gz"), "image.nii.gz", "is cut off"),
    Damage(lambda c: (c / "image.nii.gz").write_bytes(b""), "image.nii.gz", "is cut off"),
    Damage(lambda c: (c / "image.nii.gz").write_text("<html>404</html>" * 99), "image.nii.gz", "cannot be read"),
    Damage(lambda c: at(again(c, "image.nii", head(70)), 344, b"abcd"), "image.nii", "magic"),
    Damage(lambda c: cut(again(c, "image.nii", head(71))), "image.nii", "is cut off"),
    Damage(lambda c: again(c, "image.nii", head(72)).write_bytes(b""), "image.nii", "is cut off"),
    Damage(lambda c: at(again(c, "image.nii", head(73)), 42, b"\xff\x7f"), "image.nii", "is cut off"),  # 32767 wide
    Damage(lambda c: cut(c / RIGHT), RIGHT, "is cut off"),
    Damage(lambda c: at(c / RIGHT, 0, b"DRRN"), RIGHT, "magic"),
    Damage(lambda c: (c / "labels.nrrd").write_bytes(b""), "labels.nrrd", "cannot be read"),
    Damage(lambda c: edit(c / "labels.nrrd", b"sizes: 40", b"sizes: 0"), "labels.nrrd", "is empty"),
    Damage(lambda c: cut(c / LEFT), LEFT, "is cut off"),
    Damage(lambda c: cut(dicom_case(c) / "007.dcm"), "image", "slice 007.dcm"),
    Damage(lambda c: (dicom_case(c) / "007.dcm").write_text("no slice"), "image", "slice 007.dcm is damaged or no DI"),
    Damage(lambda c: (dicom_case(c) / "007.dcm").write_bytes(b""), "image", "slice 007.dcm is damaged"),
    Damage(lambda c: (dicom_case(c) / "007.dcm").unlink(), "image", "slices are missing"),
    Damage(lambda c: write_dicom(dicom_case(c), head(), series="1.7", offset=50), "image", "holds 2 series"),
    Damage(lambda c: write_head(c / LEFT, mask("parotid_left")[1:]), LEFT, "another grid .*shape 40 x 40 x 32"),
    Damage(
        lambda c: write_head(c / LEFT, mask("parotid_left"), affine=ras_affine((5, 5, 2.5))), LEFT, "another.*spacing"
    ),
    Damage(
        lambda c: write_head(c / LEFT, mask("parotid_left"), affine=ras_affine(HEAD_MM, (0, 7, 11))), LEFT, "corners up"
    ),
    Damage(lambda c: write_head(c / LEFT, mask("parotid_left") + 1), LEFT, "holds the values 1, 2 where one organ"),
    Damage(lambda c: fill(c), LEFT, "parotid_left fills 40% of the scan"),
    Damage(labels_with(-3), "labels.nrrd", "label -3 stands for no organ"),
    Damage(labels_with(5), "labels.nrrd", "label 5 stands for no organ"),
    Damage(lambda c: write_head(c / "labels.nrrd", mask("mandible") * np.float32(0.7)), "labels.nrrd", "fractions"),
    Damage(broken_image(np.nan), "image.nii.gz", "NaN or infinite"),
    Damage(broken_image(np.inf), "image.nii.gz", "NaN or infinite"),
    Damage(broken_image(1e6), "image.nii.gz", "are not HU"),
    Damage(lambda c: write_head(c / "image.nii.gz", np.full(HEAD_SHAPE, 40, np.int16)), "image.nii.gz", "is constant"),
    Damage(lambda c: write_head(c / "image.nii.gz", head(80).astype(np.float32) / 1000), "image.nii.gz", "are not HU"),
    Damage(lambda c: write_head(c / "image.nii.gz", head(81) + 1024), "image.nii.gz", "are not HU"),
    Damage(
        lambda c: edit(again(c, "image.mha", head(82)), b"Spacing = 5.0", b"Spacing = 0.0"), "image.mha", "spacing of 0"
    ),
    Damage(lambda c: write_case(c, 83, ras_affine((0.005, 0.005, 0.005))), "image.nii.gz", "no CT's"),
    Damage(lambda c: write_case(c, 84, turn=lambda a: a[::-1]), LEFT, "parotid_left lies to the patient's right"),
    Damage(lambda c: (c / "image.nii.gz").unlink(), "image", "the file is missing"),
    Damage(lambda c: write_head(c / "image.nrrd", head(85)), "image.nrrd", "has the same name"),
    Damage(lambda c: (c / "labels.nrrd").rename(c / "label.nrrd"), "label.nrrd", "stands for no organ"),
    Damage(lambda c: shutil.copy(c.parent / "Patient Nr. 7" / "image.nii.gz", c), "image.nii.gz", "is the same scan"),
    Damage(two_sides, "image.nii.gz", "two orientations"),
    Damage(four_dimensions, "image.nii.gz", "one 3D volume"),
    Damage(lambda c: edit(c / RIGHT, b"space: left-posterior", b"space: nowhere-posterior"), RIGHT, "orientation|read"),
]


def write_folder(root: Path, damages: list[Damage]) -> dict[str, Damage]:
    """Write two clean cases with names in two scripts, and one for each damage."""
    cases = {f"case {k}": damage for k, damage in enumerate(damages)}
    for k, name in enumerate(("Patient Nr. 7", "患者 é", *cases)):
        write_case(root / name, seed=100 + k)
    (root / "hnlib.yaml").write_text(
        yaml.safe_dump({"organs": FILES, "split": {"train": ["Patient Nr. 7", "患者 é", *cases]}}, allow_unicode=True),
        "utf-8",
    )
    return cases


# The layouts of the public sets.


def write_pddca(root: Path, damages: list[Damage]) -> dict[str, Damage]:
    names = TRAINING[: len(damages) + 1]
    for seed, name in enumerate(names):
        pddca_case(root / name, seed)
    return dict(zip(names[1:], damages, strict=True))


def pddca_case(folder: Path, seed: int, turn: Same = lambda array: array) -> None:
    write_head(folder / "img.nrrd", turn(head(seed)))
    for organ in BOXES:
        write_head(folder / "structures" / f"{ORGANS[organ].spellings['pddca'][0]}.nrrd", turn(mask(organ)))


def cover(path: Path, *organs: str) -> None:
    write_head(path, np.max([mask(organ) for organ in organs], axis=0))


PDDCA = [
    Damage(lambda c: cut(c / "img.nrrd"), "img.nrrd", "is cut off"),
    Damage(lambda c: (c / "img.nrrd").unlink(), "img.nrrd", "the file is missing"),
    Damage(
        lambda c: swap(c / "structures" / "Parotid_L.nrrd", c / "structures" / "Parotid_R.nrrd"),
        "Parotid_L.nrrd",
        "parotid_left lies to the patient's right of parotid_right",
    ),
    Damage(
        lambda c: pddca_case(c, 50, turn=lambda a: a[:, ::-1]), "Mandible.nrrd", "mandible lies behind brainstem: .*"
    ),
    Damage(lambda c: pddca_case(c, 51, turn=lambda a: a[..., ::-1]), "BrainStem.nrrd", "brainstem lies below mandible"),
    Damage(
        lambda c: cover(c / "structures" / "BrainStem.nrrd", "brainstem", "mandible"),
        "BrainStem.nrrd",
        "brainstem and mandible share 256 voxels of 256",
    ),
    Damage(
        lambda c: (c / "structures" / "Parotid_L.nrrd").replace(c / "structures" / "Parotid_R.nrrd"),
        "Parotid_R.nrrd",
        "parotid_right lies to the patient's left of brainstem",
    ),
    Damage(
        lambda c: (c / "structures" / "Chiasm.nrrd").rename(c / "structures" / "Chisam.nrrd"),
        "Chisam.nrrd",
        "stands for no organ",
    ),
    Damage(lambda c: shutil.copytree(c, c.parent / "part2" / c.name), "part2", "found twice"),
    Damage(
        lambda c: write_head(c / "structures" / "Mandible.nrrd", mask("mandible")[1:]), "Mandible.nrrd", "another grid"
    ),
]


def write_tcia(root: Path, damages: list[Damage]) -> dict[str, Damage]:
    cases = {f"0522c09{k:02}": damage for k, damage in enumerate(damages)}
    for seed, name in enumerate(("0522c0002", *cases)):
        for observer in OBSERVERS:
            folder = root / "nrrds" / "test" / observer / name
            write_head(folder / "CT_IMAGE.nrrd", head(seed))
            for row in ORGANS.values():
                if "tcia" in row.spellings:
                    write_head(folder / "segmentations" / f"{row.spellings['tcia'][seed % 2 - 1]}.nrrd", mask(row.name))
    return cases


def second(folder: Path, organ: str) -> Path:
    """Return the second observer's file of an organ, in either spelling."""
    return next(
        path
        for path in (folder.parents[1] / OBSERVERS[1] / folder.name / "segmentations").iterdir()
        if path.stem in ORGANS[organ].spellings["tcia"]
    )


TCIA = [
    Damage(lambda c: cut(c / "CT_IMAGE.nrrd"), "CT_IMAGE.nrrd", "is cut off"),
    Damage(lambda c: cut(second(c, "mandible")), OBSERVERS[1], "is cut off"),
    Damage(lambda c: write_head(second(c, "mandible"), mask("mandible")[:, 1:]), OBSERVERS[1], "another grid.*40"),
    Damage(
        lambda c: swap(second(c, "lens_left"), second(c, "lens_right")),
        OBSERVERS[1],
        "lens_left lies to the patient's right of lens_right",
    ),
    Damage(lambda c: second(c, "mandible").write_text("NRRD0004\n\n"), "Mandible.nrrd", "its header lacks type"),
]


def write_openkbp(root: Path, damages: list[Damage]) -> dict[str, Damage]:
    cases = {f"pt_{k + 1}": damage for k, damage in enumerate(damages)}
    for seed, name in enumerate(("pt_0", *cases)):
        write_patient(root / "train-pats" / name, seed)
    return cases


def write_patient(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    image = np.full(SHAPE, -1000, np.float32)
    image[40:80, 40:80, 40:72] = head(seed)
    some = np.zeros(SHAPE, bool)
    some[::2, ::2, ::2] = True  # an eighth of the voxels is as good, and quick to read
    table(folder / "ct.csv", some & (image > -500), image + 1000)
    for row in ORGANS.values():
        if row.name in (*BOXES, "spinal_cord") and "openkbp" in row.spellings:
            table(folder / f"{row.spellings['openkbp'][0]}.csv", placed(row.name))
    (folder / "voxel_dimensions.csv").write_text("3.9\n4.1\n2.5\n")


def placed(*organs: str) -> NDArray[np.bool_]:
    found = np.zeros(SHAPE, bool)
    for organ in organs:
        found[40:80, 40:80, 40:72] |= mask(organ) == 1
    return found


def table(path: Path, where: NDArray[np.bool_], values: Array | None = None) -> None:
    """Write voxels of a RAS array as the challenge does: flat indices of its own axes, values where there are any."""
    turn = ornt_transform(RAS, axcodes2ornt(AXES))
    index = np.flatnonzero(apply_orientation(where, turn))
    found = [""] * index.size if values is None else apply_orientation(values, turn).ravel()[index].astype(int).tolist()
    rows = [f"{i},{value}\n" for i, value in zip(index.tolist(), found, strict=True)]
    path.write_text(",data\n" + "".join(rows))


def no_offset(folder: Path) -> None:
    lines = (row.split(",") for row in (folder / "ct.csv").read_text().splitlines()[1:])
    rows = [f"{index},{int(value) - 1000}\n" for index, value in lines]
    (folder / "ct.csv").write_text(",data\n" + "".join(rows))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


OPENKBP = [
    Damage(lambda c: (c / "ct.csv").write_bytes((c / "ct.csv").read_bytes()[:-3]), "ct.csv", "is cut off"),
    Damage(lambda c: append(c / "ct.csv", "7\n"), "ct.csv", "NaN or cut lines"),
    Damage(lambda c: (c / "ct.csv").write_text("<html>\n"), "ct.csv", "cannot be read"),
    Damage(lambda c: (c / "ct.csv").write_text(",data\n"), "ct.csv", "holds no voxel"),
    Damage(lambda c: (c / "ct.csv").write_text(",data\n5,0\n"), "ct.csv", "is constant"),
    Damage(lambda c: (c / "ct.csv").unlink(), "ct.csv", "the file is missing"),
    Damage(no_offset, "ct.csv", "are not HU"),
    Damage(lambda c: shutil.copy(c.parent / "pt_0" / "ct.csv", c), "ct.csv", "is the same scan"),
    Damage(lambda c: append(c / "Mandible.csv", "2097152,\n"), "Mandible.csv", "index 2097152 lies outside"),
    Damage(lambda c: append(c / "Mandible.csv", "12.5,\n"), "Mandible.csv", "cannot be read"),
    Damage(lambda c: append(c / "Mandible.csv", "12,,3\n"), "Mandible.csv", "cannot be read"),
    Damage(lambda c: append(c / "Mandible.csv", "1234"), "Mandible.csv", "is cut off"),
    Damage(lambda c: (c / "Mandible.csv").write_bytes(b""), "Mandible.csv", "cannot be read"),
    Damage(lambda c: (c / "Mandible.csv").rename(c / "Mandibel.csv"), "Mandibel.csv", "stands for no organ"),
    Damage(lambda c: swap(c / "LeftParotid.csv", c / "RightParotid.csv"), "LeftParotid.csv", "patient's right of"),
    Damage(
        lambda c: table(c / "SpinalCord.csv", placed("spinal_cord", "brainstem")),
        "SpinalCord.csv",
        "brainstem and spinal_cord share 80 voxels of 80",
    ),
    Damage(lambda c: (c / "voxel_dimensions.csv").write_text("3.9\n0\n2.5\n"), "voxel_dimensions.csv", "three posit"),
    Damage(lambda c: (c / "voxel_dimensions.csv").write_text("3.9\n4.1\n"), "voxel_dimensions.csv", "three positive"),
    Damage(lambda c: (c / "voxel_dimensions.csv").write_bytes(b""), "voxel_dimensions.csv", "three positive numbers"),
    Damage(lambda c: (c / "voxel_dimensions.csv").write_text(".0039\n.0041\n.0025\n"), "ct.csv", "is no CT's"),
    Damage(lambda c: shutil.copytree(c, c.parents[1] / "test-pats" / c.name), "train-pats", "patient is also in"),
]

LAYOUTS: dict[str, tuple[Callable[[Path, list[Damage]], dict[str, Damage]], list[Damage]]] = {
    "folder": (write_folder, FOLDER),
    "pddca": (write_pddca, PDDCA),
    "tcia": (write_tcia, TCIA),
    "openkbp": (write_openkbp, OPENKBP),
}


def case_folder(dataset: str, root: Path, name: str) -> Path:
    inner = {"tcia": f"nrrds/test/{OBSERVERS[0]}", "openkbp": "train-pats"}.get(dataset, ".")
    return root / inner / name


def check(dataset: str, root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Run the command; return its status and the lines on problems."""
    with pytest.raises(SystemExit) as stop:
        main(["check", dataset, str(root)])
    printed = capsys.readouterr()
    assert not printed.err
    assert "Traceback" not in printed.out
    lines = printed.out.splitlines()
    problems = [line for line in lines if line.startswith("problem: ")]
    assert lines[-1].endswith(f"cases read, {len(problems)} problem{'' if len(problems) == 1 else 's'} found")
    assert all(line.startswith(("problem: ", "note: ")) for line in lines[:-1])
    assert isinstance(stop.value.code, int)
    return stop.value.code, problems


def test_more_than_forty_damages_are_tried() -> None:
    assert sum(len(damages) for _, damages in LAYOUTS.values()) >= 40


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_clean_data_set_has_no_problem(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, damages = LAYOUTS[dataset]
    write(tmp_path, damages[:2])
    assert check(dataset, tmp_path, capsys) == (0, [])


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_every_damage_is_found_by_case_and_file(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, damages = LAYOUTS[dataset]
    cases = write(tmp_path, damages)
    for name, damage in cases.items():
        damage.do(case_folder(dataset, tmp_path, name))
    status, problems = check(dataset, tmp_path, capsys)
    assert status == 1
    for name, damage in cases.items():
        own = [line for line in problems if re.match(f"problem: case {name}[,:]", line)]
        assert any(damage.file in line and re.search(damage.text, line) for line in own), (damage, own)
    for line in problems:
        assert re.match(r"problem: case [^,:]+, (file|folder) /.*: .*[;,] ", line), line  # the remedy comes last
    assert {line.split(",")[0].split(":")[1].strip() for line in problems} == {f"case {name}" for name in cases}
    assert not [line for line in problems if "cannot be checked" in line]


def test_what_is_no_case_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder outside the split, of no known case, without a patient's number: each named."""
    write_folder(tmp_path / "folder", [])
    (tmp_path / "folder" / "left out").mkdir()
    write_pddca(tmp_path / "pddca", [])
    pddca_case(tmp_path / "pddca" / "0522c7777", 7)
    write_openkbp(tmp_path / "openkbp", PDDCA[:1])
    (tmp_path / "openkbp" / "train-pats" / "pt_1 copy").mkdir()
    for dataset, name, text in (
        ("folder", "left out", "is in no split; add it to hnlib.yaml"),
        ("pddca", "0522c7777", "is none of the 48 cases"),
        ("openkbp", "pt_1 copy", "is no patient of the challenge; name it"),
    ):
        status, problems = check(dataset, tmp_path / dataset, capsys)
        assert status == 1
        assert len(problems) == 1
        assert problems[0].startswith(f"problem: case {name}, folder {tmp_path / dataset}")
        assert text in problems[0]


def test_an_unknown_label_in_many_cases_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """hnlib.yaml says 9 where the files say 7: no line a case, and none that nobody outlined the mandible."""
    write_folder(tmp_path, PDDCA[:2])
    settings = tmp_path / "hnlib.yaml"
    settings.write_text(settings.read_text("utf-8").replace("mandible: 7", "mandible: 9"), "utf-8")
    status, problems = check("folder", tmp_path, capsys)
    assert status == 1
    assert problems == [
        "problem: data set folder: label 7 stands for no organ in 4 of 4 cases "
        "(Patient Nr. 7, 患者 é, case 0, case 1), while none has mandible; name it in hnlib.yaml, or remove it"
    ]


def test_an_unknown_file_in_many_cases_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pddca(tmp_path, PDDCA[:5])
    for case in tmp_path.iterdir():
        (case / "structures" / "Chiasm.nrrd").rename(case / "structures" / "Chisam.nrrd")
    _, (line,) = check("pddca", tmp_path, capsys)
    assert "Chisam.nrrd stands for no organ in 6 of 6 cases (" in line
    assert "while none has optic_chiasm; name it rightly" in line


def test_an_organ_that_no_case_has_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pddca(tmp_path, PDDCA[:1])
    for case in tmp_path.iterdir():
        (case / "structures" / "Chiasm.nrrd").unlink()
    _, (line,) = check("pddca", tmp_path, capsys)
    assert line.startswith(
        "problem: data set pddca: no case has optic_chiasm under the name or label that stands for it;"
    )


@pytest.mark.parametrize("spacing", [(0.3, 0.3, 0.3), (1.0, 1.0, 5.0), (60.0, 60.0, 60.0)])
def test_a_scan_that_holds_no_body_is_told(
    spacing: tuple[float, float, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 34 x 32 x 32 voxels of tissue: a body of 10 mm, one of 34 mm, and one beyond any scanner."""
    write_folder(tmp_path, PDDCA[:2])
    write_case(tmp_path / "case 1", 90, ras_affine(spacing))
    _, (line,) = check("folder", tmp_path, capsys)
    assert line.startswith(f"problem: case case 1, file {tmp_path / 'case 1' / 'image.nii.gz'}: ")
    assert "export it with the" in line
    if spacing[0] < 1:
        assert "with voxel edges of 0.3 x 0.3 x 0.3 mm the patient is 10 x 10 x 10 mm large" in line


def test_voxel_edges_unlike_the_others_are_told() -> None:
    """2.4 times the median is taken, 2.6 times is not; slices may vary five-fold; a thin scan is told once."""
    usual = [Sized(f"usual {k}", (1.0, 1.0, 2.5), (200, 200, 250)) for k in range(5)]
    fine = [Sized("", spacing, (200, 200, 250)) for spacing in ((2.4, 1, 2.5), (0.45, 0.45, 0.6), (1, 1, 12))]
    assert list(_odd_sizes([*usual, *fine])) == []
    for spacing in ((2.6, 1.0, 2.5), (0.35, 0.35, 2.5), (1.0, 1.0, 13.0), (1.0, 1.0, 0.45)):
        (found,) = _odd_sizes([*usual, Sized("case x, file y", spacing, (200, 200, 250))])
        assert found.is_problem
        assert found.text.startswith("case x, file y: voxel edges of ")
        assert "are far from the 1 x 1 x 2.5 mm that are usual here; compare with the source" in found.text
    (found,) = _odd_sizes([*usual, Sized("case x, file y", (0.1, 0.1, 2.5), (20, 20, 250))])
    assert "the patient is 20 x 20 x 250 mm large" in found.text


@pytest.mark.parametrize(
    ("dataset", "empty", "named"),
    [
        ("folder", lambda c: [p.unlink() for p in c.iterdir() if p.name != "image.nii.gz"], "labels.nii.gz"),
        ("pddca", lambda c: shutil.rmtree(c / "structures"), "structures/BrainStem.nrrd"),
        ("openkbp", lambda c: [p.unlink() for p in c.glob("[A-Z]*.csv")], "Brainstem.csv"),
    ],
)
def test_a_patient_without_any_organ_is_a_problem(
    dataset: str, empty: Callable[[Path], object], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its line names the file that was looked for."""
    write, damages = LAYOUTS[dataset]
    (case, *_) = write(tmp_path, damages[:2])
    empty(case_folder(dataset, tmp_path, case))
    status, problems = check(dataset, tmp_path, capsys)
    assert status == 1
    place = case_folder(dataset, tmp_path, case)
    assert problems == [
        f"problem: case {case}, file {place / named}: no organ is outlined there, nor in another file of the case; "
        "copy its outlines, or leave the case out"
    ]


def test_the_line_on_another_grid_says_which_is_the_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path, PDDCA[:1])
    write_head(tmp_path / "case 0" / LEFT, mask("parotid_left")[1:])
    _, (line,) = check("folder", tmp_path, capsys)
    assert "(shape 40 x 40 x 32 of the scan against 39 x 40 x 32)" in line


def test_few_shared_voxels_are_noted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the brainstem's 80 voxels 16 are a fifth: a note on the data set; 17 are a problem of the case."""
    write_folder(tmp_path, PDDCA[:3])
    for k, shared in enumerate((10, 16, 17)):
        wider = mask("parotid_left")
        wider.reshape(-1)[np.flatnonzero(mask("brainstem"))[:shared]] = 1
        write_head(tmp_path / f"case {k}" / LEFT, wider)
    with pytest.raises(SystemExit):
        main(["check", "folder", str(tmp_path)])
    said = [line for line in capsys.readouterr().out.splitlines() if "share" in line]
    assert len(said) == 2
    assert re.match("problem: case case 2, .*: brainstem and parotid_left share 17 voxels of 80; ", said[0])
    assert said[1] == (
        "note: data set folder: in 2 of 5 cases outlines share voxels, which go to the later organ; "
        "most in case case 1: 16 of brainstem and parotid_left"
    )
