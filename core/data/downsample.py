"""Pictures of any size as square images of one size, as OpenAI's image_datasets.py does it.

Halved as often as the shorter side stays at least the size asked for, each time the mean of 2 x 2
pixels; from there in one bicubic step; then the middle square. One bicubic step from a large
picture would skip most of its pixels in Pillow's older versions and ring in all of them.
"""

from PIL import Image


def downsampled(picture: Image.Image, size: int) -> Image.Image:
    """The middle of the picture, size x size pixels. A smaller picture is enlarged, bicubically.

    Pillow takes means along rows and then along columns, each time rounded to whole levels.
    """
    while min(picture.size) >= 2 * size:
        width, height = picture.size
        picture = picture.resize((width // 2, height // 2), Image.Resampling.BOX)
    scale = size / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    return middle(picture.resize((width, height), Image.Resampling.BICUBIC), size)


def middle(picture: Image.Image, size: int) -> Image.Image:
    """The square in the middle; where that lies between two pixels, the upper or left one."""
    left, top = ((side - size) // 2 for side in picture.size)
    return picture.crop((left, top, left + size, top + size))
