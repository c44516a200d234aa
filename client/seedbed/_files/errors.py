"""Errors about the content of files."""


class FileFormatError(ValueError):
    """A file does not have the expected format, or the format cannot hold what is to be written."""


class FileSizeError(FileFormatError):
    """A safetensors file is shorter or longer than its header says."""
