"""Random weights, the same on every machine, for models whose published weights the tests may not use.

NumPy draws them in a fixed order, so that they do not depend on the version of PyTorch. Their names are those
of the reference, cvg/LightGlue. With their scales, features differ between places and similar features match.
"""

import numpy as np
import torch

from lightglue_ros.export.models.transformer import LightGlueConfig

SEED = 0  # of the weights in all tests and goldens
UPDATE = 0.1  # gain of the update that each layer of the transformer adds to the tokens
SHARPNESS = 10.0  # gain of the projection that similarities are computed from
WIDTHS = 1, 64, 64, 128, 128  # of SuperPoint's image and levels
SUPERPOINT = {  # channels in, channels out, kernel size
    f"conv{level}{layer}": (WIDTHS[level - (layer == "a")], WIDTHS[level], 3)
    for level in (1, 2, 3, 4)
    for layer in "ab"
} | {
    "convPa": (128, 256, 3),
    "convPb": (256, 65, 1),
    "convDa": (128, 256, 3),
    "convDb": (256, 256, 1),
}


def superpoint_weights(seed: int) -> dict[str, torch.Tensor]:
    """Draw SuperPoint. Kernels sum to 0 and biases are small, so that brightness does not dominate."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, (channels_in, channels_out, size) in SUPERPOINT.items():
        kernel = random.standard_normal((channels_out, channels_in, size, size))
        kernel -= kernel.mean(axis=(1, 2, 3), keepdims=True)
        gain = 20.0 if name == "convPb" else 2.0
        weights[f"{name}.weight"] = kernel * (gain / (channels_in * size**2)) ** 0.5
        weights[f"{name}.bias"] = 0.02 * random.standard_normal(channels_out)
    return _tensors(weights)


def lightglue_weights(config: LightGlueConfig, seed: int) -> dict[str, torch.Tensor]:
    """Draw LightGlue. The heads of earlier layers come last, because only adaptive matchers have them."""
    random = np.random.default_rng(seed)
    weights = {}

    def linear(name, channels_in, channels_out, gain=1.0):
        scale = gain * channels_in**-0.5
        weights[f"{name}.weight"] = scale * random.standard_normal((channels_out, channels_in))
        weights[f"{name}.bias"] = 0.1 * gain * random.standard_normal(channels_out)

    width = config.width
    if config.has_projection:
        linear("input_proj", config.input_dim, width)
    weights["posenc.Wr.weight"] = random.standard_normal((config.head_dim // 2, 2))
    for layer in range(config.layers):
        for block in (f"transformers.{layer}.self_attn", f"transformers.{layer}.cross_attn"):
            if block.endswith("self_attn"):
                linear(f"{block}.Wqkv", width, 3 * width)
                linear(f"{block}.out_proj", width, width)
            else:
                linear(f"{block}.to_qk", width, width)
                linear(f"{block}.to_v", width, width)
                linear(f"{block}.to_out", width, width)
            linear(f"{block}.ffn.0", 2 * width, 2 * width)
            weights[f"{block}.ffn.1.weight"] = 1 + 0.1 * random.standard_normal(2 * width)
            weights[f"{block}.ffn.1.bias"] = 0.1 * random.standard_normal(2 * width)
            linear(f"{block}.ffn.3", 2 * width, width, gain=UPDATE)
    for layer in (config.layers - 1, *range(config.layers - 1)):
        linear(f"log_assignment.{layer}.matchability", width, 1)
        linear(f"log_assignment.{layer}.final_proj", width, width, gain=SHARPNESS)
    for layer in range(config.layers - 1):
        linear(f"token_confidence.{layer}.token.0", width, 1)
    return _tensors(weights)


def _tensors(weights):
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in weights.items()}
