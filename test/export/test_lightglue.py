"""Parts of LightGlue that are written otherwise than in the reference."""

import pytest
import torch
from torch.nn import functional as F

from lightglue_ros.export.models.lightglue import Attention, LightGlueConfig
from lightglue_ros.export.precision.int8 import QuantisedAttention

CONFIG = LightGlueConfig(input_dim=64, width=64, heads=4, layers=1)


def scaled_dot_product_attention(query, key, value, mask):
    parts = (
        part.unflatten(2, (CONFIG.heads, CONFIG.head_dim)).transpose(1, 2) for part in (query, key, value)
    )
    found = F.scaled_dot_product_attention(*parts, attn_mask=mask[:, None, None], scale=1.0)
    return found.transpose(1, 2).flatten(2)


def with_channel(values, last):
    by_head = values.unflatten(2, (CONFIG.heads, CONFIG.head_dim))
    return F.pad(by_head, (0, 1), value=last).flatten(2)


@pytest.mark.parametrize("key_channel", [0.0, 1.0])
def test_attention_with_a_mask_channel_is_scaled_dot_product_attention(key_channel):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 9, CONFIG.width)
    mask = torch.rand(2, 9) > 0.3
    attention = Attention(CONFIG, key_channel)
    expected = scaled_dot_product_attention(query, key, value, mask)
    query, longer_key = with_channel(query, 1.0), with_channel(key, key_channel)
    torch.testing.assert_close(attention(query, longer_key, value, mask), expected)
    # What padded keys and values hold is not seen.
    other = torch.where(mask[:, :, None], 0.0, 1e4)
    again = attention(query, with_channel(key + other, key_channel), value + other, mask)
    torch.testing.assert_close(again, expected)


def test_attention_in_int8_is_nearly_the_same_and_does_not_look_at_padding():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 9, CONFIG.width)
    mask = torch.rand(2, 9) > 0.3
    attention = QuantisedAttention(CONFIG, *(part.abs().max().item() for part in (query, key, value)))
    found = attention(query, key, value, mask)
    expected = scaled_dot_product_attention(query, key, value, mask)
    assert (found - expected).abs().max() < 0.15
    assert (found - expected).abs().mean() < 0.02
    other = torch.where(mask[:, :, None], 0.0, 1e4)
    assert torch.equal(attention(query, key + other, value + other, mask), found)


def test_in_int8_a_query_that_looks_at_a_thousand_keys_gets_their_mean():
    torch.manual_seed(0)
    key, value = torch.randn(2, 2, 1024, CONFIG.width)
    mask = torch.rand(2, 1024) > 0.1
    attention = QuantisedAttention(CONFIG, 1.0, key.abs().max().item(), (value + 3).abs().max().item())
    # Probabilities of 1/1024, which is less than a step.
    found = attention(torch.zeros_like(key), key, value + 3, mask)
    expected = torch.stack([side[known].mean(dim=0) for side, known in zip(value + 3, mask, strict=True)])
    torch.testing.assert_close(found, expected.unsqueeze(1).expand_as(found))
