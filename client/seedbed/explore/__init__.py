"""The web page of ``seedbed explore``: any tensor's histogram, image, law and calls. Requires the extra ``explore``."""
