"""Run SuperPoint + LightGlue of transformers with random weights and store their results.

In addition to the packages of `lightglue_ros[export]` this needs an independent implementation:

    pip install transformers==5.23.0
    python test/export/make_goldens_superpoint.py

The published SuperPoint is for research only, so the weights are those of random_weights.py. With these,
hardly anything but the same cells matches. So the two images are parts of the left motorcycle image, 8 pixels
apart, each in the top-left corner of a black 640 x 480 canvas.

The detector runs on the whole canvas without a threshold. Keypoints within 4 pixels of an edge of the image,
or outside it, are dropped before the K best are taken, as in our extractor. (transformers can drop them only
at the canvas's left and upper edges.) Early stopping and pruning are off, and the match threshold is 0.
"""

from pathlib import Path

import numpy as np
import torch
from random_weights import SEED, lightglue_weights, superpoint_weights
from transformers import LightGlueConfig, LightGlueForKeypointMatching, SuperPointConfig

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.image_files import read_image
from lightglue_ros.export.registry import MODELS
from lightglue_ros.export.weights import motorcycle_pair

GOLDEN = Path(__file__).parent.parent / "data" / "superpoint_random.npz"
MAX_KEYPOINTS = 256
BORDER = 4
LAYERS = 9
# Parts of names here and in transformers, in the order of replacement: SuperPoint's ...
SUPERPOINT_NAMES = {
    f"conv{n}{layer}.": f"encoder.conv_blocks.{n - 1}.conv_{layer}." for n in range(1, 5) for layer in "ab"
}
SUPERPOINT_NAMES |= {
    "convPa.": "keypoint_decoder.conv_score_a.",
    "convPb.": "keypoint_decoder.conv_score_b.",
    "convDa.": "descriptor_decoder.conv_descriptor_a.",
    "convDb.": "descriptor_decoder.conv_descriptor_b.",
}
# ... and LightGlue's.
LIGHTGLUE_NAMES = {
    "posenc.Wr.": "positional_encoder.projector.",
    "transformers.": "transformer_layers.",
    "self_attn.ffn.": "self_mlp.",
    "cross_attn.ffn.": "cross_mlp.",
    "_mlp.0.": "_mlp.fc1.",
    "_mlp.1.": "_mlp.layer_norm.",
    "_mlp.3.": "_mlp.fc2.",
    "self_attn.out_proj.": "self_attention.o_proj.",
    "cross_attn.to_v.": "cross_attention.v_proj.",
    "cross_attn.to_out.": "cross_attention.o_proj.",
    "log_assignment.": "match_assignment_layers.",
    "final_proj.": "final_projection.",
}


def main():
    left = read_image(motorcycle_pair()[0])
    batch = Canvas((640, 480), channels=1, divisor=8).place([left[:464, :616], left[:464, 8:624]])
    model = build()
    with torch.inference_mode():
        slots = zip(batch.images, batch.sizes, strict=True)
        features = [extract(model.keypoint_detector, *slot) for slot in slots]
        keypoints, scores, descriptors, counts = (torch.stack(parts) for parts in zip(*features, strict=True))
        assignments = []
        last = model.match_assignment_layers[LAYERS - 1]
        last.register_forward_hook(lambda *call: assignments.append(call[2]))
        width, height = batch.image_sizes[0].astype(int).tolist()
        mask = torch.ones(1, 2, MAX_KEYPOINTS, dtype=torch.int)
        found = model._match_image_pair(keypoints[None], descriptors[None], height, width, mask=mask)
        matches, match_scores, *_ = found
    matches = matches[:1].numpy().astype(np.int32)
    np.savez_compressed(
        GOLDEN,
        keypoints=keypoints.numpy(),
        keypoint_scores=scores.numpy(),
        keypoint_mask=np.ones((2, MAX_KEYPOINTS), bool),
        descriptors=descriptors[:, ::4].numpy().astype(np.float16),
        matches=matches,
        match_scores=match_scores[:1].numpy() * (matches >= 0),
        layers=np.array([LAYERS], np.int32),
        counts=counts.numpy(),
        log_assignment=assignments[0][0, :MAX_KEYPOINTS:2, :MAX_KEYPOINTS:2].numpy(),
    )
    print(f"{GOLDEN.name}: {(matches >= 0).sum()} matches, {GOLDEN.stat().st_size} bytes")


def build():
    detector = SuperPointConfig(keypoint_threshold=0.0, max_keypoints=-1, border_removal_distance=0)
    config = LightGlueConfig(
        keypoint_detector_config=detector, depth_confidence=-1.0, width_confidence=-1.0, filter_threshold=0.0
    )
    model = LightGlueForKeypointMatching(config).eval()
    own = superpoint_weights(SEED).items()
    weights = {f"keypoint_detector.{rename(name, SUPERPOINT_NAMES)}": value for name, value in own}
    for name, value in lightglue_weights(MODELS["superpoint"].matcher, SEED).items():
        weights |= split(rename(name, LIGHTGLUE_NAMES), value)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert all("token_confidence" in name or "match_assignment_layers" in name for name in missing)
    return model


def rename(name, names):
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name


def split(name, value):
    """Split query, key and value, which the reference has in one matrix."""
    if ".self_attn.Wqkv." in name:
        query, key, rest = value.unflatten(0, (-1, 3)).unbind(1)
        parts = {"q_proj": query, "k_proj": key, "v_proj": rest}
        return {name.replace("self_attn.Wqkv", f"self_attention.{part}"): it for part, it in parts.items()}
    if ".cross_attn.to_qk." in name:
        parts = "q_proj", "k_proj"
        return {name.replace("cross_attn.to_qk", f"cross_attention.{part}"): value for part in parts}
    return {name: value}


def extract(detector, canvas, size):
    grey = torch.from_numpy(canvas).permute(2, 0, 1)[None].expand(-1, 3, -1, -1) / 255
    found = detector(grey)
    keypoints = (found.keypoints[0] * torch.tensor([canvas.shape[1], canvas.shape[0]])).round()
    is_inside = (keypoints >= BORDER) & (keypoints < torch.from_numpy(size) - BORDER)
    inside = is_inside.all(dim=1).nonzero()[:, 0]
    scores, order = found.scores[0, inside].sort(descending=True, stable=True)
    last, next_one = scores[MAX_KEYPOINTS - 1 : MAX_KEYPOINTS + 1].tolist()
    print(f"{len(scores)} keypoints, score of the last one taken {last:.7f}, of the next one {next_one:.7f}")
    best = inside[order[:MAX_KEYPOINTS]]
    return keypoints[best], found.scores[0, best], found.descriptors[0, best], torch.tensor(len(scores))


if __name__ == "__main__":
    main()
