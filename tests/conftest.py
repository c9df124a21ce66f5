"""One thread for every test: small tensors on busy cores are many times slower with several."""

import torch

torch.set_num_threads(1)
