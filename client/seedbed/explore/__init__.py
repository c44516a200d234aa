"""The page of ``seedbed explore``: any tensor's histogram, picture, law and calls; needs the extra ``explore``."""
