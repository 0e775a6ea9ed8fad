"""Conversion of networks to the precisions fp16 and int8."""
