"""Train the classifier behind FD (fashion_cnn) and write its weights to fashion_cnn.npz.

Usage: python -m core.metrics.train_fashion_cnn

It takes some minutes on one core. The test images are looked at once, after the last step. The
result is the same on every run with one version of PyTorch on one kind of processor.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.data.images import Images, batch_indices
from core.data.make_fashion16 import write_npz
from core.data.sources import load
from core.metrics.fashion_cnn import WEIGHTS, FashionCNN, prepare
from core.randomness import numpy_generator, torch_seed

SEED = 0
EPOCHS = 12
BATCH = 128
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.05


def augment(x: Tensor, step: int) -> Tensor:
    """Half of the images mirrored, then each shifted by -1, 0 or 1 pixels along both axes.

    `x` is [n, 1, H, W]; what is shifted in is black (-1), as the images' borders are.
    """
    draw = numpy_generator(SEED, "augment", step)
    mirrored = torch.from_numpy(draw.random(len(x)) < 0.5).view(-1, 1, 1, 1)
    x = torch.where(mirrored, x.flip(3), x)
    padded = F.pad(x, (1, 1, 1, 1), value=-1.0)
    top, left = torch.from_numpy(draw.integers(0, 3, size=(2, len(x), 1, 1)))
    rows = top + torch.arange(x.shape[2]).view(1, -1, 1)
    columns = left + torch.arange(x.shape[3]).view(1, 1, -1)
    image = torch.arange(len(x)).view(-1, 1, 1)
    return padded[image, 0, rows, columns].unsqueeze(1)


def train(images: Images) -> FashionCNN:
    """The classifier trained on `images` by AdamW, the learning rate rising once and falling."""
    torch.manual_seed(torch_seed(SEED, "weights"))
    network = FashionCNN().train().to(memory_format=torch.channels_last)
    steps = EPOCHS * len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
    for step in range(steps):
        indices = torch.from_numpy(batch_indices(len(images), BATCH, SEED, step))
        logits = network(augment(images.batch(indices), step))
        loss = F.cross_entropy(logits, images.labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    return network.eval()


@torch.inference_mode()
def accuracy(network: FashionCNN, images: Images) -> float:
    """The share of `images` whose largest logit is that of their label."""
    predicted = [network(prepare(batch)).argmax(dim=1) for batch in images.pixels.split(500)]
    return (torch.cat(predicted) == images.labels).double().mean().item()


def main() -> None:
    torch.set_num_threads(1)  # sums come in one order whatever the number of cores
    network = train(load("fashion16", "train"))
    test_accuracy = accuracy(network, load("fashion16", "test"))
    arrays = {key: value.contiguous().numpy() for key, value in network.state_dict().items()}
    write_npz(WEIGHTS, {"test_accuracy": np.float64(test_accuracy), **arrays})
    print(f"test accuracy {test_accuracy:.4f}; {WEIGHTS.name}: {WEIGHTS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
