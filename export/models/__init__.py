"""The networks in PyTorch: a file for each extractor, the matchers, and what they share."""
