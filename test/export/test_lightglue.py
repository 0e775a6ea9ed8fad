"""Parts of LightGlue that are written otherwise than in the reference."""

import torch
from torch.nn import functional as F

from lightglue_ros.export.lightglue import _attend, _mask_logits


def test_attention_with_a_mask_channel_is_scaled_dot_product_attention():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 9, 16)
    mask = torch.rand(2, 9) > 0.3
    logits = _mask_logits(mask, torch.float32)[:, None, :, None].expand(-1, 4, -1, -1)
    with_channel = (
        torch.cat([query * 16**-0.5, torch.ones_like(logits)], dim=3),
        torch.cat([key, logits], dim=3),
    )
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
    found = _attend(*with_channel, value)
    torch.testing.assert_close(found, expected.transpose(1, 2).reshape(2 * 9, 4 * 16))
    # What padded keys and values hold is not seen.
    other = torch.where(mask[:, None, :, None], 0.0, 1e4)
    again = _attend(with_channel[0], with_channel[1] + other, value + other)
    torch.testing.assert_close(again, found)
