"""Joint sets: what is refused, what follows from names, files and categories, and the sets known by name."""

from __future__ import annotations

import gzip
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.coco import create_pose_model, joints_of
from cycledistill.integrations.coco.data.coco_file.normalise import normalised
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO, CROWDPOSE, JOINT_SETS, JointError, JointSet
from cycledistill.integrations.coco.data.joints.names import (
    canonical,
    first_difference,
    mirror_names,
    side_of,
    sides_of,
)
from cycledistill.integrations.coco.data.joints.own import MEAN_SIGMA, joints_from

SHARED = Path(__file__).parents[4] / "shared" / "data"
HAND = {"name": "hand", "names": [f"joint {index}" for index in range(21)], "flip_pairs": [], "sigmas": [0.03] * 21}


def category(*names: str, **other: Any) -> dict[str, Any]:
    return {"categories": [{"id": 1, "name": "beast", "keypoints": list(names), **other}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sigmas": [0.03] * 17}, "sigmas: 17 for 21 joints; one for each"),
        ({"sigmas": [0.03] * 20 + [0.0]}, "sigmas: 0.0 of 'joint 20'; a number above 0"),
        ({"sigmas": [0.03] * 20 + [10**400]}, "sigmas: 1000.* of 'joint 20'; a number above 0"),
        ({"flip_pairs": [[0, 21]]}, r"flip_pairs: \[0, 21\]; two indices from 0 to 20"),
        ({"flip_pairs": [[0, -1]]}, r"flip_pairs: \[0, -1\]; two indices"),
        ({"flip_pairs": [[0, 1], [1, 2]]}, "flip_pairs: 'joint 1' is in two pairs"),
        ({"flip_pairs": [[0, 1], [0, 1]]}, "flip_pairs: 'joint 0' is in two pairs"),
        ({"flip_pairs": [[3, 3]]}, r"flip_pairs: \[3, 3\] is one joint"),
        ({"flip_pairs": [[1, 2, 3]]}, "flip_pairs: .*two indices"),
        ({"flip_pairs": [["joint 1", "tail"]]}, "flip_pairs: there is no joint 'tail' among joint 0"),
        ({"flip_pairs": 5}, "flip_pairs=5: a list is expected"),
        ({"limbs": [[0, 30]]}, "limbs: .*two indices from 0 to 20"),
        ({"names": []}, "names: there are no joints"),
        ({"names": ["a"] * 21}, "names: 'a' is there twice"),
        ({"names": ["a", 3]}, "names: joint 1 is called 3; text"),
        ({"upper_body": [0, 0]}, "upper_body: .*each once"),
        ({"pck": "torso"}, "pck: 'torso' needs shoulders and hips of both sides"),
        ({"pck": "foot"}, "pck: 'foot'; one of torso, head, bbox, none"),
        ({"parts": [["palm", 0, 22]]}, "parts: 'palm' runs from 0 to 22"),
        ({"flips": []}, "unknown field 'flips'; known: name, names"),
    ],
)  # fmt: skip
def test_joints_that_contradict_themselves_are_refused(change: dict[str, Any], said: str) -> None:
    JointSet.from_dict(HAND)
    with pytest.raises(JointError, match=said):
        JointSet.from_dict(HAND | change)


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(JointError, match="joints 'hand': the field 'sigmas' is missing"):
        JointSet.from_dict({key: value for key, value in HAND.items() if key != "sigmas"})


@pytest.mark.parametrize(
    "names",
    [
        ("left_eye", "right_eye"),
        ("eye_left", "eye_right"),
        ("l_eye", "r_eye"),
        ("eye.L", "eye.R"),
        ("L-eye", "R-eye"),
        ("Left Eye", "Right Eye"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("leftEye", "rightEye"),
        ("eyeL", "eyeR"),
        ("LEye", "REye"),
        ("lefteye", "righteye"),
    ],
)
def test_left_and_right_are_found_however_they_are_written(names: tuple[str, str]) -> None:
    assert mirror_names(["nose", *names, "tail"]) == [0, 2, 1, 3]
    assert [side_of(name) for name in names] == ["left", "right"]
    assert canonical(names[0]) == canonical("left_eye") and canonical(names[1]) == canonical("eye_r")


def test_letters_that_are_no_sides_are_left_alone() -> None:
    names = ["rear", "collar", "lip", "right_ear", "upper_l", "l1", "forelimb", "tail"]
    assert mirror_names(names) == list(range(8))
    short = ["lank", "rank", "Lsho", "Rsho", "lip"]  # abbreviations
    assert mirror_names(short) == [1, 0, 3, 2, 4] and sides_of(short) == ["left", "right", "left", "right", None]
    assert first_difference(["1", "2"], ["left_eye", "nose"]) is None  # numbers are no names


def test_what_agrees_in_two_lists_is_mirrored_in_one() -> None:
    mixed = ["L_Leg", "legR", "left_front_paw", "PawFront_R", "nose"]
    assert mirror_names(mixed) == [1, 0, 3, 2, 4]
    assert first_difference(["leye", "reye"], ["left_eye", "R-Eye"]) is None
    assert first_difference(["l_finger_1_2"], ["l_finger_2_1"]) == 0
    assert mirror_names(["left_eye", "l_eye", "right_eye"]) == [0, 1, 2]  # which of the two is not told


@pytest.mark.parametrize(
    ("names", "mirror"),
    [
        (["LF", "RF", "LB", "RB"], [1, 0, 3, 2]),
        (["lf_paw", "rf_paw", "lh_paw", "rh_paw"], [1, 0, 3, 2]),
        (["FL", "FR", "RL", "RR"], [1, 0, 3, 2]),  # front and rear
        (["LF", "RF", "LR", "RR"], [1, 0, 3, 2]),
        (["LR", "RL", "tail"], [0, 1, 2]),
        (["1", "2", "3"], [0, 1, 2]),
    ],
)
def test_the_legs_of_animals_by_their_letters(names: list[str], mirror: list[int]) -> None:
    assert mirror_names(names) == mirror


def test_auto_takes_names_skeleton_and_sigmas_from_the_category(caplog: pytest.LogCaptureFixture) -> None:
    names = ("nose", "Left Ear", "Right Ear", "tail")
    with caplog.at_level(logging.WARNING):
        found = joints_from("auto", category(*names, skeleton=[[1, 2], [1, 3], [3, 4]]))
    assert found.names == names and found.flip_pairs == ((1, 2),) and found.limbs == ((0, 1), (0, 2), (2, 3))
    assert found.sigmas == (MEAN_SIGMA,) * 4 and pytest.approx(0.06694, abs=1e-5) == MEAN_SIGMA
    assert "no sigmas were given" in caplog.text and "mean of COCO's" in found.source
    assert found.pck == "bbox" and found.upper_body == ()
    given = joints_from("auto", category(*names, sigmas=[0.1, 0.2, 0.3, 0.4], skeleton=[[0, 3]]))
    assert given.sigmas == (0.1, 0.2, 0.3, 0.4) and given.limbs == ((0, 3),)  # counted from 0
    with pytest.raises(JointError, match="sigmas: 3 for 4 joints"):
        joints_from("auto", category(*names, sigmas=[0.1, 0.2, 0.3]))


@pytest.mark.parametrize(("pair", "limb", "said"), [([2, 3], (1, 2), True), ([2, 4], (1, 3), False)], ids=str)
def test_a_skeleton_that_does_not_tell_where_it_counts_from_is_said(
    pair: list[int], limb: tuple[int, int], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert joints_from("auto", category("a", "b", "c", "d", skeleton=[pair])).limbs == (limb,)
    assert ("names neither joint 0 nor joint 4: taken as counted from 1" in caplog.text) is said


def test_auto_on_known_data_sets_finds_what_is_known_of_them(caplog: pytest.LogCaptureFixture) -> None:
    for joints in (COCO, CROWDPOSE, JOINT_SETS["mpii"]):
        with caplog.at_level(logging.ERROR):
            found = joints_from("auto", category(*joints.names))
        assert set(found.flip_pairs) == set(joints.flip_pairs) and found.upper_body == tuple(sorted(joints.upper_body))
    assert joints_from("auto", category(*CROWDPOSE.names)).pck == "torso"


def test_auto_refuses_files_without_joints_and_categories_that_disagree() -> None:
    with pytest.raises(JointError, match=r"no category .* has a list 'keypoints'.*the file has no categories"):
        joints_from("auto", {"categories": []})
    with pytest.raises(JointError, match=r"the file has 1 'car'\).*give data.joints a YAML file"):
        joints_from("auto", {"categories": [{"id": 1, "name": "car"}]})
    two = category("a", "b")
    two["categories"].append({"id": 2, "name": "plant", "keypoints": ["a", "c"]})
    with pytest.raises(JointError, match=r"beast \(2\) and plant \(2\) differ from joint 1 on. Say by data.categories"):
        joints_from("auto", two)
    assert joints_from("auto", two, ["plant"]).names == joints_from("auto", two, ["2"]).names == ("a", "c")
    two["categories"].append({"id": 3, "name": "stone"})
    everything = "1 'beast' with 2 joints, 2 'plant' with 2 joints, 3 'stone'"
    with pytest.raises(JointError, match=rf"categories \['foo'\]: the file has no 'foo', but {everything}"):
        joints_from("auto", two, ["foo"])
    with pytest.raises(JointError, match=rf"no category among \['stone'\] has .* \(the file has {everything}\)"):
        joints_from("auto", two, ["stone"])
    with pytest.raises(JointError, match=r"categories \[\]: none is asked for; .*1 'beast'"):
        joints_from("auto", two, [])
    two["categories"][1]["keypoints"] = {"a": 1}
    with pytest.raises(JointError, match="a list of names is expected"):
        joints_from("auto", two, [2])


def test_a_yaml_file_gives_all_or_changes_what_there_is(tmp_path: Path) -> None:
    whole, part = tmp_path / "claw.yaml", tmp_path / "more.yaml"
    whole.write_text("names: [l_tip, r_tip, base]\nsigmas: [0.1, 0.1, 0.2]\nlimbs: [[l_tip, base], [1, 2]]\n")
    claw = joints_from(str(whole))
    assert (claw.name, claw.flip_pairs, claw.limbs) == ("claw", ((0, 1),), ((0, 2), (1, 2)))
    part.write_text("flip_pairs: [[a, b]]\npck: none\n")
    assert joints_from(str(part), category("a", "b")).flip_pairs == ((0, 1),)
    assert joints_from({"preset": "coco", "pck": "bbox"}).pck == "bbox"
    for text, said in (("[1]", "a mapping is expected"), ("names: [a\n", "is not plain YAML"), ("names: 3", "names=3")):
        part.write_text(text)
        with pytest.raises(JointError, match=said):
            joints_from(str(part))
    with pytest.raises(JointError, match="there is no such file"):
        joints_from(str(tmp_path / "none.yaml"))
    with pytest.raises(JointError, match="one of coco, .*Did you mean 'coco'"):
        joints_from("cocoo")


def file_of(*names: str) -> dict[str, Any]:
    points = [[10 + 3 * joint, 20, 2] for joint in range(len(names))]
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 80, 80], "keypoints": sum(points, [])}  # noqa: RUF017
    images = [{"id": 1, "file_name": "1.png", "width": 100, "height": 100}]
    return {"images": images, "annotations": [entry], **category(*names)}


def test_a_file_of_other_joints_is_refused_by_their_names() -> None:
    nameless = file_of(*COCO.names) | {"categories": []}
    numbered = file_of(*(f"{index}" for index in range(17)))  # numbers are no names
    titled = file_of(*(name.replace("_", " ").title() for name in COCO.names))
    for fine in (nameless, numbered, titled):
        assert len(normalised(fine, COCO).counted()) == 1
    animals = JOINT_SETS["ap10k"].names
    with pytest.raises(PoseDataError, match="'left_eye' as joint 0, where coco has 'nose'. data.joints=auto takes"):
        normalised(file_of(*animals), COCO)
    with pytest.raises(PoseDataError, match=r"it has 14 joints .* and coco has 17"):
        normalised(file_of(*CROWDPOSE.names), COCO)
    with pytest.raises(PoseDataError, match="categories .'beast'.: 1 'beast': it has 'left_eye' as joint 0"):
        normalised(file_of(*animals), COCO, ["beast"])
    own = joints_from("auto", category("a", "b"))  # auto is not advised to who has it
    with pytest.raises(PoseDataError) as refused:
        normalised(file_of(*animals), own)
    assert "data.joints=auto" not in str(refused.value)
    both = file_of(*animals)
    both["categories"].append({"id": 2, "name": "person", "keypoints": [*COCO.names]})
    assert normalised(both, COCO).left_out == {"of another category": 1}  # as many joints, of other names
    assert len(normalised(both, JOINT_SETS["ap10k"]).counted()) == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_published_files_pass_under_their_own_joint_sets() -> None:
    crowd = json.loads((SHARED / "keypoint_gt" / "xtcocoapi_crowdpose_gt.json").read_text())
    assert normalised(crowd, CROWDPOSE).counted()
    assert joints_from("auto", crowd).limbs == ()  # its skeleton is COCO's, of joints 1 to 17
    coco = json.loads((SHARED / "keypoint_gt" / "faster_coco_eval_keypoints_gt.json").read_text())
    assert normalised(coco, COCO).counted()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("lspet/lspet.zip", "annotations/val.json"),
        ("coco/coco_person_free.zip", "annotations/person_keypoints_val2017.json"),
        ("keypoint_gt/coco_val2017_538.json.gz", None),
    ],
    ids=["lspet", "coco", "coco 538"],
)
def test_nothing_in_real_files_is_refused_or_doubted(
    name: str, inside: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if inside is None:
        data = json.loads(gzip.decompress((SHARED / name).read_bytes()))
    else:
        with zipfile.ZipFile(SHARED / name) as packed:
            data = json.loads(packed.read(inside))
    for size in ("told", "unknown"):
        if size == "unknown":
            data["images"] = [{key: picture[key] for key in ("id", "file_name")} for picture in data["images"]]
        with caplog.at_level(logging.WARNING):
            assert normalised(data, joints_from("auto", data)).counted()
    assert "outside their box" not in caplog.text and "100 pixels" not in caplog.text


# Sums of the published sigmas, added up apart: COCO's and CrowdPose's evaluation, mmpose's mpii.py and
# coco_wholebody.py, ap10k.py of AP-10K's authors.
SUMS = {
    "coco": (17, 1.138), "crowdpose": (14, 1.15), "mpii": (16, 1.288), "ap10k": (17, 1.138),
    "wholebody": (133, 3.861), "wholebody_hand": (21, 0.553), "wholebody_face": (68, 1.137),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SUMS))
def test_the_sets_known_by_name(name: str) -> None:
    joints, (number, total) = JOINT_SETS[name], SUMS[name]
    assert len(joints) == number and joints.source and sum(joints.sigmas) == pytest.approx(total, abs=5e-4)
    assert JointSet.from_dict(json.loads(json.dumps(joints.to_dict()))) == joints
    sigmas = np.array(joints.sigmas)
    if name != "wholebody_face" and "wholebody" not in name:
        np.testing.assert_array_equal(sigmas, sigmas[list(joints.flip_order)])
        assert joints.flip_order == tuple(mirror_names(joints.names))
    linked = {joint for limb in joints.limbs for joint in limb}
    assert len(linked) == number
    mirrored = {frozenset(joints.flip_order[joint] for joint in limb) for limb in joints.limbs}
    if name != "wholebody_hand":  # a skeleton is its own mirror image
        assert len(mirrored ^ {frozenset(limb) for limb in joints.limbs}) <= (4 if name == "wholebody_face" else 8)


def test_the_face_is_mirrored_as_its_points_lie() -> None:
    face = JOINT_SETS["wholebody_face"]
    middle = {8, 27, 28, 29, 30, 33, 51, 57, 62, 66}  # chin, ridge of the nose, middle of the lips
    assert {joint for joint in range(68) if face.flip_order[joint] == joint} == middle
    assert JOINT_SETS["wholebody"].part("face").flip_pairs == face.flip_pairs
    assert JOINT_SETS["wholebody"].part("lefthand").limbs == JOINT_SETS["wholebody_hand"].limbs


def test_a_model_carries_its_joints_or_stands_for_those_of_its_number() -> None:
    model: Any = create_pose_model("tokenpose_t", num_keypoints=14, dim=16, depth=1, heads=2)
    assert joints_of(model) is CROWDPOSE
    own = JointSet.from_dict(HAND | {"names": HAND["names"][:14], "sigmas": [0.1] * 14})  # type: ignore[index]
    model.joints = own.to_dict()
    assert joints_of(model) == own
    with pytest.raises(JointError, match="predicts 5 joints; known are 17"):
        joints_of(create_pose_model("tokenpose_t", num_keypoints=5, dim=16, depth=1, heads=2))
