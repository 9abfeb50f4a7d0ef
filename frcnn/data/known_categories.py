"""The classes of public data sets, for weights that come without their names."""

from __future__ import annotations

from frcnn.data.roles import Category

ANY_OBJECT = Category(1, "object")
"""What proposals are of, which tell no classes apart."""

_COCO = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, , stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, , backpack, umbrella, , , "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, , wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, , dining table, , , toilet, , tv, "
    "laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, , book, clock, vase, "
    "scissors, teddy bear, hair drier, toothbrush"
)
_VOC = (
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person, "
    "pottedplant, sheep, sofa, train, tvmonitor"
)
_KEYPOINTS = (
    "nose, left_eye, right_eye, left_ear, right_ear, left_shoulder, right_shoulder, left_elbow, right_elbow, left_wrist, "
    "right_wrist, left_hip, right_hip, left_knee, right_knee, left_ankle, right_ankle"
)
_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),
    *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)


def _numbered(names: str) -> tuple[Category, ...]:
    """Categories with the ids 1, 2, ...; an empty place uses up an id."""
    return tuple(Category(number, name) for number, name in enumerate(names.split(", "), start=1) if name)


KNOWN_CATEGORIES: dict[str, tuple[Category, ...]] = {
    "coco": _numbered(_COCO),
    "coco_person": (Category(1, "person", tuple(_KEYPOINTS.split(", ")), _SKELETON),),
    "voc": _numbered(_VOC),
    "cityscapes": tuple(
        Category(label, name)
        for label, name in (
            *((24, "person"), (25, "rider"), (26, "car"), (27, "truck")),
            *((28, "bus"), (31, "train"), (32, "motorcycle"), (33, "bicycle")),
        )
    ),
}
"""Name -> categories in the order of the classes, with the ids of the data set's own files.

coco has 80 of COCO's 90 ids, coco_person the person with 17 keypoints, voc the 20 of Pascal VOC in alphabetic order, and
cityscapes the 8 that have instances.
"""
