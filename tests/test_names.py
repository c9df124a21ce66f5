"""What a Frechet distance is called: never FID unless it is one."""

import pytest

from core.metrics.names import metric_name, short_name

SHA256 = "ab12cd34" + 56 * "0"


@pytest.mark.parametrize(
    "features, images, sha256, name",
    [
        ("fashion_cnn", 1000, "", "FD (fashion_cnn)"),
        ("effnet_lite0", 50_000, "", "FD (effnet_lite0)"),
        ("inception", 50_000, "", "FID (inception, 50k)"),
        ("inception", 10_000, "", "FID (inception, 10k)"),
        ("inception", 2100, "", "FID (inception, 2100)"),
        ("inception", None, "", "FID (inception)"),
        ("inception", 50_000, SHA256, "FD (inception ab12cd34, 50k)"),
        ("inception", None, SHA256, "FD (inception ab12cd34)"),
    ],
)
def test_a_name_says_the_features_and_of_a_fid_the_images(features, images, sha256, name):
    assert metric_name(features, images, sha256) == name
    assert name.startswith(f"{short_name(features, sha256)} (")
