"""An image of a camera whose pixels are at hand."""


class PixelImage:
    def __init__(self, pixels):
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def decode(self, mono16):
        return self.pixels

    def without_pixels(self):
        return self
