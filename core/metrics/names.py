"""What a Frechet distance is called: its features, and the number of images where that is usual."""


def features_name(features: str, sha256: str = "") -> str:
    """Of an extractor; weights other than the published ones are part of it."""
    return f"{features} {sha256[:8]}" if sha256 else features


def short_name(features: str, sha256: str = "") -> str:
    """FID for the features of Heusel et al. 2017 and their weights alone, FD for all others."""
    return "FID" if features == "inception" and not sha256 else "FD"


def metric_name(features: str, images: int | None = None, sha256: str = "") -> str:
    """As in "FD (fashion_cnn)", "FID (inception, 50k)".

    A FID says of how many images it is, for with fewer it is larger. images=None: of several
    numbers of them. sha256: of the weights, where they are not the published ones.
    """
    short, what = short_name(features, sha256), features_name(features, sha256)
    if features != "inception" or images is None:
        return f"{short} ({what})"
    count = f"{images // 1000}k" if images % 1000 == 0 else str(images)
    return f"{short} ({what}, {count})"
