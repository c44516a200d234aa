"""The version of this release: of the client, the server, the images and the manifests."""

__version__ = "1.0.0"
