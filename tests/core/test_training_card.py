"""The table on a bundle's card."""

from training import card

VAL = {"val_photos": 296.0, "val_fp32_top1": 0.8243, "val_int8_top1": 0.8277, "val_fp32_calibration_error": 0.0745}
SCENES = {"synthetic_frames": 240.0, "synthetic_fp32_top1": 1.0, "synthetic_int8_top1": 0.9958}


def test_both_precisions_stand_side_by_side_and_how_sure_the_share_is() -> None:
    assert card.figures(VAL | SCENES, {"fp32": 10_100_000, "int8": 5_060_000}).splitlines() == [
        "|  | FP32 | INT8 |",
        "| --- | ---: | ---: |",
        "| 296 photos of val: right | 82.4% (77.7% to 86.3%) | 82.8% (78.1% to 86.6%) |",
        "| 296 photos of val: calibration error (ECE) | 0.074 |  |",
        "| 240 rendered scenes: right | 100.0% | 99.6% |",
        "| size | 10.1 MB | 5.1 MB |",
    ]


def test_a_bundle_without_int8_or_photos_has_no_place_for_them() -> None:
    assert card.figures(SCENES, {"fp32": 4_000_000}).splitlines() == [
        "|  | FP32 |",
        "| --- | ---: |",
        "| 240 rendered scenes: right | 100.0% |",
        "| size | 4.0 MB |",
    ]
